//! What needs more than one process: an agent outside the executor, death of either, an ordinary user, SIGBUS.
//!
//! Children are this test binary again, told their part by an environment variable.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use common::{FIRST, allow, next_faults, pattern, pattern_word, space};
use dsm_wire::{PAGE_BYTES, PageRange};
use uffd_dsm::{Access, Backing, Copied, CopyError, CopyFaults, PageSource, Pager, PagerError, View, ViewError};

const PAGE: u64 = PAGE_BYTES as u64;
const PART: &str = "UFFD_DSM_TEST_PART";
const NOBODY: u32 = 65_534;
const SERVED_PAGES: u64 = 100;

/// Plays the part this process was started for; a pass when it was started for none.
#[test]
fn child() {
    match std::env::var(PART).as_deref() {
        Err(_) => {}
        Ok("poisoned") => touch_poison(),
        Ok("ordinary user") => run_as_ordinary_user(),
        Ok("agent") => run_as_agent(),
        Ok("executor") => run_as_executor(),
        Ok(part) => panic!("no such part: {part}"),
    }
}

fn command(program: &std::path::Path, part: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(PART, part);
    command
}

fn spawn(part: &str, stdin: OwnedFd, stdout: Stdio) -> Child {
    command(&std::env::current_exe().unwrap(), part).stdin(stdin).stdout(stdout).spawn().unwrap()
}

fn inherited(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

#[test]
fn poison_is_sigbus() {
    let Some(mut space) = space("poison_is_sigbus") else { return };
    if let Err(error @ PagerError::PoisonUnsupported { .. }) = space.pager.poison(FIRST) {
        return common::skip("poison_is_sigbus", &error);
    }
    let output = command(&std::env::current_exe().unwrap(), "poisoned").output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
}

fn touch_poison() {
    let mut space = space("touch_poison").unwrap();
    allow(&space.view, FIRST, 1, Access::READ_WRITE);
    space.pager.install(FIRST, &[PageSource::Bytes(&pattern(1))], true).unwrap();
    assert_eq!(space.view.load(FIRST.address()), pattern_word(1, 0));
    space.pager.poison(FIRST).unwrap();
    // A system call fails instead of being killed.
    let zero = File::open("/dev/zero").unwrap();
    assert_eq!(common::sys::read_into_view(&space.view, FIRST.address(), 8, zero.as_fd()), Err(nix::errno::Errno::EFAULT));
    let word = space.view.load(FIRST.address());
    panic!("read {word} from a poisoned page");
}

/// A forked child reads what its parent has, keeps what it writes to itself, and asks for nothing that it made anew.
#[test]
fn a_forked_child_has_a_copy() {
    const SETTLED: i32 = 777;
    let Some(mut space) = space("a_forked_child_has_a_copy") else { return };
    allow(&space.view, FIRST, 2, Access::READ_WRITE);
    let next = dsm_wire::PageNumber(FIRST.0 + 1);
    for (page, seed) in [(FIRST, 1), (next, 2)] {
        space.pager.install(page, &[PageSource::Bytes(&pattern(seed))], true).unwrap();
    }
    let (ready, tell) = nix::unistd::pipe().unwrap();
    let (address, second) = (FIRST.address(), next.address());
    let child = common::sys::fork_for(|| {
        let settle = |fd: OwnedFd| common::sys::move_to(fd, SETTLED);
        let copied = Copied::map(None, settle).unwrap();
        let range = PageRange::new(FIRST, 2);
        copied.inherit(range, Access::READ_WRITE).unwrap();
        nix::unistd::write(&tell, &[1]).unwrap();
        assert_eq!(copied.load(address), pattern_word(1, 0));
        copied.store(address, 77);
        assert_eq!(copied.load(address), 77);
        copied.forget(PageRange::new(next, 1)).unwrap();
        assert_eq!(copied.load(second), 0);
        copied.forget(range).unwrap();
        assert_eq!(copied.load(address), 0);
    });
    let child = child.unwrap();
    nix::unistd::read(&ready, &mut [0]).unwrap();
    let faults = CopyFaults::new(common::sys::fd_of_process(child.as_raw() as u32, SETTLED).unwrap());
    let status = loop {
        match nix::sys::wait::waitpid(child, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).unwrap() {
            nix::sys::wait::WaitStatus::StillAlive => faults.serve(|_| Ok(())).or_else(|error| match error {
                CopyError::Gone => Ok(()),
                other => Err(other),
            }),
            status => break status,
        }
        .unwrap();
    };
    assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
    assert_eq!(space.view.load(address), pattern_word(1, 0));
}

/// A child that was given what there is finds it there, and zeros elsewhere, when nobody answers its faults any more.
#[test]
fn a_forked_child_has_all_of_it() {
    const SETTLED: i32 = 778;
    let Some(space) = space("a_forked_child_has_all_of_it") else { return };
    let range = PageRange::new(FIRST, 3);
    let next = dsm_wire::PageNumber(FIRST.0 + 1);
    let (ready, tell) = nix::unistd::pipe().unwrap();
    let (go, let_go) = nix::unistd::pipe().unwrap();
    let child = common::sys::fork_for(|| {
        let settle = |fd: OwnedFd| common::sys::move_to(fd, SETTLED);
        let copied = Copied::map(None, settle).unwrap();
        copied.inherit(range, Access::READ).unwrap();
        nix::unistd::write(&tell, &[1]).unwrap();
        nix::unistd::read(&go, &mut [0]).unwrap();
        let own = copied.keep();
        assert_eq!(own.load(FIRST.address()), pattern_word(1, 0));
        assert_eq!(own.load(next.address()), pattern_word(2, 0));
        assert_eq!(own.load(next.offset(1).address()), 0);
        own.forget(PageRange::new(next, 1)).unwrap();
        assert_eq!(own.load(next.address()), 0);
        own.protect(range, Access::NONE).unwrap();
    });
    let child = child.unwrap();
    nix::unistd::read(&ready, &mut [0]).unwrap();
    let faults = CopyFaults::new(common::sys::fd_of_process(child.as_raw() as u32, SETTLED).unwrap());
    faults.fill(FIRST, &[pattern(1), pattern(2)].concat()).unwrap();
    drop(faults);
    nix::unistd::write(&let_go, &[1]).unwrap();
    assert_eq!(nix::sys::wait::waitpid(child, None).unwrap(), nix::sys::wait::WaitStatus::Exited(child, 0));
    drop(space);
}

/// An inherited `/dev/userfaultfd` is all that an ordinary user needs, also for faults inside system calls.
#[test]
fn ordinary_user_with_inherited_device() {
    let test = "ordinary_user_with_inherited_device";
    let device = match uffd_dsm::open_userfaultfd_device() {
        Ok(device) => device,
        Err(error) => return common::skip(test, &format!("/dev/userfaultfd: {error}: run as root")),
    };
    if !nix::unistd::geteuid().is_root() {
        return common::skip(test, &"only root can become another user: run as root");
    }
    // A child started meanwhile would hold the copy open for writing, and it could not be executed.
    let _alone = common::alone();
    let directory = std::env::temp_dir().join(format!("uffd-dsm-test-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = command(&program, "ordinary user").uid(NOBODY).gid(NOBODY).stdin(OwnedFd::from(device)).output();
    std::fs::remove_dir_all(&directory).unwrap();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn run_as_ordinary_user() {
    assert_eq!(nix::unistd::geteuid().as_raw(), NOBODY);
    let backing = Backing::create("ordinary user").unwrap();
    let setting = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").unwrap();
    if setting.trim() == "0" {
        let refused = View::map(backing.as_fd(), None);
        assert!(matches!(refused, Err(ViewError::UserfaultfdRefused { .. })), "{refused:?}");
    }
    let view = View::map(backing.as_fd(), Some(std::io::stdin().as_fd())).unwrap();
    let mut pager = Pager::new(backing);
    pager.attach_view(inherited(view.userfaultfd())).unwrap();
    allow(&view, FIRST, 2, Access::READ_WRITE);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _done = common::Done(&is_done);
            let zero = File::open("/dev/zero").unwrap();
            assert_eq!(common::sys::read_into_view(&view, FIRST.address(), 8, zero.as_fd()), Ok(8));
            view.store(FIRST.address() + PAGE, 1);
        });
        common::serve(&mut pager, &is_done, |pager, fault| {
            pager.install(fault.page, &[PageSource::Bytes(&pattern(3))], true).unwrap();
        });
    });
    assert_eq!((view.load(FIRST.address()), view.load(FIRST.address() + 8)), (0, pattern_word(3, 1)));
}

/// The agent is another process; when it dies, waiting threads go on waiting, and the next agent finds their faults.
#[test]
fn agent_in_another_process_and_its_death() {
    let Some(space) = space("agent_in_another_process_and_its_death") else { return };
    let common::Space { view, mut pager, .. } = space;
    allow(&view, FIRST, SERVED_PAGES + 1, Access::READ_WRITE);
    pager.detach_view();
    let mut agent = spawn("agent", inherited(view.userfaultfd()), Stdio::from(inherited(pager.backing())));
    for index in 0..SERVED_PAGES {
        let address = FIRST.offset(index).address();
        assert_eq!(view.load(address + 8), pattern_word(index, 1));
        view.store(address, index);
        assert_eq!(view.load(address), index);
    }
    std::thread::scope(|scope| {
        // The agent leaves on this fault without an answer.
        let waiting = scope.spawn(|| view.load(FIRST.offset(SERVED_PAGES).address() + 8));
        let status = agent.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(!waiting.is_finished(), "the thread went on without an answer");
        pager.attach_view(inherited(view.userfaultfd())).unwrap();
        // The dead agent took the message along; attaching made the thread fault again.
        let last = FIRST.offset(SERVED_PAGES);
        assert_eq!(next_faults(&mut pager, 5000)[0].page, last);
        assert!(!waiting.is_finished(), "the thread went on without an answer");
        pager.install(last, &[PageSource::Bytes(&pattern(9))], false).unwrap();
        assert_eq!(waiting.join().unwrap(), pattern_word(9, 1));
    });
}

fn run_as_agent() {
    let mut pager = Pager::new(Backing::from_fd(inherited(std::io::stdout())).unwrap());
    pager.attach_view(inherited(std::io::stdin())).unwrap();
    loop {
        for fault in next_faults(&mut pager, 1000) {
            let index = fault.page.0 - FIRST.0;
            if index == SERVED_PAGES {
                // Not through the harness: standard output is the memfd.
                std::process::exit(0);
            }
            if fault.write {
                let mut bytes = [0; PAGE_BYTES];
                assert!(!pager.take(fault.page, &mut bytes).unwrap());
                assert_eq!(bytes, pattern(index), "nobody wrote it yet");
                pager.install(fault.page, &[PageSource::Bytes(&bytes)], true).unwrap();
            } else {
                pager.install(fault.page, &[PageSource::Bytes(&pattern(index))], false).unwrap();
            }
        }
    }
}

/// The executor dies while its thread waits: a typed error, and the pages it had are still there.
#[test]
fn death_of_the_executor() {
    let Some(_space) = space("death_of_the_executor") else { return };
    let backing = Backing::create("death of the executor").unwrap();
    let mut executor = spawn("executor", inherited(&backing), Stdio::piped());
    let lines = BufReader::new(executor.stdout.take().unwrap()).lines();
    let fd = lines.map_while(Result::ok).find_map(|line| line.split_once("userfaultfd ")?.1.parse().ok()).unwrap();
    let mut pager = Pager::new(backing);
    pager.attach_view(common::sys::fd_of_process(executor.id(), fd).unwrap()).unwrap();

    let faults = next_faults(&mut pager, 5000);
    assert_eq!((faults.len(), faults[0].page), (1, FIRST));
    pager.install_zero(PageRange::new(FIRST.offset(1), 1)).unwrap();
    pager.install(FIRST, &[PageSource::Bytes(&pattern(1))], true).unwrap();
    assert_eq!(next_faults(&mut pager, 5000)[0].page, FIRST.offset(2));
    executor.kill().unwrap();
    executor.wait().unwrap();

    let mut bytes = [0; PAGE_BYTES];
    assert!(matches!(pager.install_zero(PageRange::new(FIRST.offset(2), 4)), Err(PagerError::ViewGone)));
    assert!(matches!(pager.install(FIRST.offset(2), &[PageSource::Zero], true), Err(PagerError::ViewGone)));
    assert!(matches!(pager.take(FIRST, &mut bytes), Err(PagerError::ViewGone)));
    assert!(matches!(pager.refresh(FIRST, true), Err(PagerError::ViewGone)));
    assert!(matches!(pager.poison(FIRST.offset(2)), Err(PagerError::ViewGone)));
    assert!(pager.drain_faults(&mut Vec::new()).is_ok());
    pager.detach_view();
    assert!(!pager.take(FIRST, &mut bytes).unwrap());
    assert_eq!(bytes[..8], 42_u64.to_ne_bytes(), "the last store is in the memfd");
    assert_eq!(bytes[8..], pattern(1)[8..]);
}

fn run_as_executor() {
    let memfd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let device = uffd_dsm::open_userfaultfd_device().ok();
    let view = View::map(memfd.as_fd(), device.as_ref().map(AsFd::as_fd)).unwrap();
    allow(&view, FIRST, 3, Access::READ_WRITE);
    println!("userfaultfd {}", view.userfaultfd().as_raw_fd());
    view.store(FIRST.address(), 42);
    view.store(FIRST.offset(2).address(), 43);
    panic!("the parent kills this process before it answers");
}

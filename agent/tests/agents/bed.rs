//! A cluster of agents in a temporary directory, each on an address of its own in 127/8.
//!
//! Owns processes and files, and removes both. Must not know what is tested.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub const AGENT: &str = env!("CARGO_BIN_EXE_dvm-agent");
pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// For everything that must happen sooner or later, on a machine with other work to do.
pub const PATIENCE: Duration = Duration::from_secs(30);

static COUNT: AtomicU8 = AtomicU8::new(1);

/// A directory with the files of a cluster of three; agents are started one by one.
pub struct Bed {
    pub directory: PathBuf,
    pub prefix: String,
    agents: Vec<Option<Child>>,
}

impl Bed {
    pub fn new(test: &str) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let directory = std::env::temp_dir().join(format!("dvm-agent-{pid}-{test}"));
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let bed = Self { directory, prefix: format!("127.{}.{number}", 1 + pid % 250), agents: vec![None, None, None] };
        bed.write_key("key", b'7');
        bed.write("cluster.toml", &bed.cluster("lab", "key"));
        let husk = bed.directory.join("fake_husk");
        fs::copy(fake_husk(), &husk).unwrap();
        for name in NAMES {
            let socket = bed.socket(name);
            bed.write(
                &format!("{name}.toml"),
                &format!("name = \"{name}\"\nsocket = \"{}\"\nexec = \"{}\"\n", socket.display(), husk.display()),
            );
        }
        bed
    }

    pub fn cluster(&self, name: &str, key: &str) -> String {
        let mut text = format!("name = \"{name}\"\nkey_file = \"{key}\"\n");
        for (place, node) in NAMES.iter().enumerate() {
            text += &format!("[[nodes]]\nname = \"{node}\"\naddress = \"{}.{}\"\ncpus = 1\n", self.prefix, place + 1);
        }
        text
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub fn write_key(&self, name: &str, byte: u8) {
        let path = self.write(name, &String::from_utf8(vec![byte; 64]).unwrap());
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn socket(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.sock"))
    }

    pub fn address(&self, name: &str) -> String {
        format!("{}.{}:7400", self.prefix, place(name) + 1)
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Runs the agent to its end: for what must fail.
    pub fn run(&self, cluster: &str, node: &str) -> Output {
        let mut command = Command::new(AGENT);
        command.arg("run").arg("--cluster").arg(self.directory.join(cluster)).arg("--node").arg(self.directory.join(node));
        command.stdin(Stdio::null()).output().unwrap()
    }

    pub fn start(&mut self, name: &str, cluster: &str) {
        let log = fs::File::create(self.directory.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(AGENT);
        command.arg("run").arg("--cluster").arg(self.directory.join(cluster));
        command.arg("--node").arg(self.directory.join(format!("{name}.toml")));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.agents[place(name)] = Some(child);
        self.until(&format!("{name} serves"), || self.try_status(name).is_some());
    }

    pub fn start_all(&mut self) {
        for name in NAMES {
            self.start(name, "cluster.toml");
        }
        for name in NAMES {
            self.until(&format!("{name} sees its peers"), || self.peers_up(name) == 2);
        }
    }

    pub fn try_status(&self, name: &str) -> Option<Value> {
        let output = Command::new(AGENT).args(["status", "--json", "--socket"]).arg(self.socket(name)).output().unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    pub fn status(&self, name: &str) -> Value {
        self.try_status(name).unwrap_or_else(|| panic!("{name} does not answer:\n{}", self.log(name)))
    }

    pub fn peers_up(&self, name: &str) -> usize {
        let status = self.status(name);
        status["peers"].as_array().unwrap().iter().filter(|peer| peer["up"] == true).count()
    }

    pub fn counter(&self, name: &str, counter: &str) -> u64 {
        self.status(name)["counters"][counter].as_u64().unwrap_or_else(|| panic!("no counter {counter}"))
    }

    pub fn jobs(&self, name: &str) -> usize {
        self.status(name)["jobs"].as_array().unwrap().len()
    }

    /// Waits until no job is left on these hosts.
    pub fn until_idle(&self, names: &[&str]) {
        for name in names {
            self.until(&format!("{name} has no job"), || self.jobs(name) == 0);
        }
    }

    pub fn pid(&self, name: &str) -> u32 {
        self.agents[place(name)].as_ref().unwrap().id()
    }

    /// Open descriptors of an agent by kind, without those that come and go.
    pub fn descriptors(&self, name: &str) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid(name))).unwrap().count()
    }

    pub fn signal(&self, name: &str, signal: &str) {
        kill(self.pid(name), signal);
    }

    /// Waits for an agent that has been told to end; gives its exit code.
    pub fn ended(&mut self, name: &str) -> Option<i32> {
        self.agents[place(name)].take().unwrap().wait().unwrap().code()
    }

    pub fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            if Instant::now() > deadline {
                let logs: Vec<String> = NAMES.iter().map(|name| format!("{name}:\n{}", self.log(name))).collect();
                panic!("never came true: {what}\n{}", logs.join("\n"));
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Opens a job as the fake root husk, as another user if given.
    pub fn open(&self, name: &str, hosts: &[&str], uid: Option<u32>) -> Root {
        let mut command = Command::new(self.directory.join("fake_husk"));
        command.arg(self.socket(name)).args(hosts).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let mut child = command.spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Root { child, orders, answers }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for child in self.agents.iter_mut().flatten() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        if !std::thread::panicking() {
            fs::remove_dir_all(&self.directory).unwrap();
        }
    }
}

/// The fake root husk, by its orders and answers.
pub struct Root {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Root {
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        self.line()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn exit(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Ended already in every test that passes.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().unwrap().success());
}

pub fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether jobs can run here; if not, says so loudly.
pub fn can_run_jobs(test: &str) -> bool {
    let device = fs::File::options().read(true).write(true).open("/dev/userfaultfd");
    if let Err(error) = &device {
        skip(test, &format!("/dev/userfaultfd: {error}"));
    }
    device.is_ok()
}

/// Whether husks of other users can be started; if not, says so loudly.
pub fn can_change_user(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip(test, "needs root");
    }
    is_root
}

/// Past the test harness, which hides what a passing test prints.
pub fn skip(test: &str, reason: &str) {
    std::io::stderr().write_all(format!("skipped: agents::{test}: {reason}\n").as_bytes()).unwrap();
}

fn place(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).unwrap()
}

fn fake_husk() -> PathBuf {
    let path = Path::new(AGENT).with_file_name("examples").join("fake_husk");
    assert!(path.exists(), "{} is not built: run cargo test -p dvm-agent without --test", path.display());
    path
}

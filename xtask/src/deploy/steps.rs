//! The scripts that change a host.
//!
//! Owns their text. Must not know how they get there, nor decide what is to be done.

use super::found::Init;
use super::layout::{BIN, COMPLETE, CONFIGURATION, LIBRARY, MANIFEST, RUN, STAGING, UNIT, UNITS, release, version};
use super::plan::{Plan, Step, directories};
use super::remote::quoted;
use super::unit;
use super::wanted::{Wanted, WantedFile};

/// How long an agent may take to answer after its start, in tenths of a second.
const ANSWER_TENTHS_MAX: u32 = 200;
/// How long it may take to end.
const END_TENTHS_MAX: u32 = 250;
const LOG_LINES: u32 = 8;
const HEAD: &str = "set -eu\numask 022\n";

/// Makes the directory for copies, once it is known that `bytes` fit; the manifest comes first, so that whatever follows is found again.
#[must_use]
pub fn stage(plan: &Plan, bytes: u64) -> String {
    let need = bytes / 1024 + 1024;
    format!(
        "{HEAD}mkdir -p {LIBRARY}
rm -rf {STAGING}
{manifest}room=$(df -Pk {LIBRARY} | awk 'NR == 2 {{ print $4 }}')
[ \"$room\" -ge {need} ] || {{ echo \"{LIBRARY} has room for $room KiB, {need} are needed: make room there\" >&2; exit 1; }}
mkdir -m 700 {STAGING}
chown \"${{SUDO_UID:-0}}\" {STAGING}
",
        manifest = put(MANIFEST, &plan.manifest.join("\n")),
    )
}

/// Checks the copies, and makes them root's.
#[must_use]
pub fn verify(wanted: &Wanted) -> String {
    let modes = |file: &WantedFile| format!("chmod {:o} {}\n", file.mode, file.staged);
    let sums: String = wanted.files.iter().map(|file| format!("{}  {}\n", file.digest, file.staged)).collect();
    format!(
        "{HEAD}cd {STAGING}\nchown -R 0:0 .\nchmod 755 .\n{}sha256sum --check --quiet - <<'END'\n{sums}END\n",
        wanted.files.iter().map(modes).collect::<String>(),
    )
}

/// Asks the agent's program what the host lacks, with the rights the agent will have; the last line is `exit N`.
#[must_use]
pub fn doctor(programs: &str, configuration: &str) -> String {
    format!(
        "{within}$within {programs}/dvm-agent doctor --json --node {configuration}/node.toml --cluster {configuration}/cluster.toml 2>&1
echo \"exit $?\"
",
        within = unit::within(),
    )
}

/// Takes the copies away again; all of ours if nothing was installed before.
#[must_use]
pub fn unstage(plan: &Plan, was_installed: bool) -> String {
    if was_installed { format!("rm -rf {STAGING}\n") } else { take_away(&plan.manifest) }
}

/// Puts everything in its place by renaming, starts the agent, and waits until it answers.
#[must_use]
pub fn apply(wanted: &Wanted, plan: &Plan, digest: &str, name: &str) -> String {
    let mut text = format!("{HEAD}rm -f {COMPLETE}\n");
    for path in wanted.files.iter().map(|file| &file.path).chain(wanted.links.iter().map(|(path, _)| path)) {
        text += &format!("rm -f {}\n", quoted(&format!("{path}.new")));
    }
    for path in directories(wanted.init) {
        text += &format!("mkdir -p {path}\n");
    }
    if plan.copies() {
        text += &place(wanted);
    }
    for step in &plan.steps {
        if let Step::Link { path, target } = step {
            text += &format!("ln -s {} {path}.new\nmv -fT {path}.new {path}\n", quoted(target));
        }
    }
    text += &format!("rm -rf {STAGING} {LIBRARY}/.old\n");
    if plan.restart().is_some() {
        text += &stop(wanted.init);
        text += &start(wanted.init);
        text += &answer(wanted.init, name);
    }
    text += &put(COMPLETE, digest);
    for step in &plan.steps {
        if let Step::Forget { id } = step {
            text += &format!("rm -rf {}\n", version(id));
        }
    }
    text
}

/// Ends the agent and takes away what the manifest lists.
#[must_use]
pub fn remove(manifest: &[String], init: Init, name: &str) -> String {
    let reload = match init {
        Init::Systemd => "systemctl daemon-reload\nsystemctl reset-failed dvm-agent 2>/dev/null || true\n",
        Init::None => "",
    };
    format!(
        "{HEAD}{stop}rm -f {RUN}/agent.log {RUN}/agent.pid {RUN}/supervise.pid {RUN}/{name}.sock\n{away}{reload}",
        stop = stop(init),
        away = take_away(manifest)
    )
}

fn place(wanted: &Wanted) -> String {
    let directory = version(&wanted.id);
    let mut text = format!("cd {STAGING}\nmkdir programs\nmv {} programs/\n", release().join(" "));
    text += &format!("if [ -e {directory} ]; then rm -rf {LIBRARY}/.old; mv {directory} {LIBRARY}/.old; fi\n");
    text += &format!("mv programs {directory}\nrm -rf {LIBRARY}/.old\n");
    let others = wanted.files.iter().filter(|file| !file.path.starts_with(LIBRARY));
    for WantedFile { path, staged, .. } in others {
        text += &format!("cp -p {staged} {path}.new\nmv -fT {path}.new {path}\n");
    }
    text + "cd /\n"
}

fn take_away(manifest: &[String]) -> String {
    let mut text = String::new();
    for line in manifest {
        match line.split_once(' ') {
            Some(("file" | "link", path)) => text += &format!("rm -f {0} {0}.new\n", quoted(path)),
            Some(("tree", path)) => text += &format!("rm -rf {}\n", quoted(path)),
            _ => {}
        }
    }
    for line in manifest.iter().rev() {
        if let Some(("directory", path)) = line.split_once(' ') {
            let path = quoted(path);
            text +=
                &format!("[ ! -d {path} ] || rmdir {path} 2>/dev/null || echo \"left \"{path}\": it holds files of others\"\n");
        }
    }
    text
}

fn stop(init: Init) -> String {
    match init {
        Init::Systemd => format!("[ ! -e {UNITS}/{UNIT} ] || systemctl stop {UNIT}\n"),
        Init::None => format!(
            "for name in supervise agent; do
  pid=$(cat {RUN}/$name.pid 2>/dev/null) || continue
  tr '\\0' ' ' < \"/proc/$pid/cmdline\" 2>/dev/null | grep -q {LIBRARY} || continue
  kill -TERM \"$pid\" 2>/dev/null || continue
  tenths=0
  while [ -d \"/proc/$pid\" ] && [ $tenths -lt {END_TENTHS_MAX} ]; do sleep 0.1; tenths=$((tenths + 1)); done
  [ ! -d \"/proc/$pid\" ] || {{ echo \"process $pid (dvm-$name) did not end: end it by hand\" >&2; exit 1; }}
done
"
        ),
    }
}

fn start(init: Init) -> String {
    match init {
        Init::Systemd => format!("systemctl daemon-reload\nsystemctl start {UNIT} || true\n"),
        Init::None => format!("setsid sh {LIBRARY}/current/dvm-supervise < /dev/null > /dev/null 2>&1 &\n"),
    }
}

fn answer(init: Init, name: &str) -> String {
    let log = match init {
        Init::Systemd => format!("journalctl -q --no-pager -o cat -u {UNIT} -n {LOG_LINES}"),
        Init::None => format!("tail -n {LOG_LINES} {RUN}/agent.log"),
    };
    format!(
        "tenths=0
until timeout 5 {BIN}/dvm-agent status --json --socket {RUN}/{name}.sock > /dev/null 2>&1; do
  sleep 0.1
  tenths=$((tenths + 1))
  [ $tenths -lt {ANSWER_TENTHS_MAX} ] || {{ echo 'the agent does not answer; its log ends:' >&2; {log} >&2; exit 1; }}
done
"
    )
}

/// Writes a file whole or not at all.
fn put(path: &str, text: &str) -> String {
    format!("cat > {path}.new <<'END'\n{text}\nEND\nmv -f {path}.new {path}\n")
}

/// Prints the key of a host.
#[must_use]
pub fn show_key() -> String {
    format!("cat {}/{}\n", super::layout::ETC, CONFIGURATION[2].0)
}

//! Serves jobs whose hosts are all this machine: `lone_agent SOCKET DVM_EXEC HOSTS`, for trying the executor by hand.
//!
//! Owns the command line. Must not know how jobs are served.

#[path = "../tests/lone_agent/mod.rs"]
mod lone_agent;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, exec, hosts] = arguments.as_slice() else { anyhow::bail!("usage: lone_agent SOCKET DVM_EXEC HOSTS") };
    println!("unless told otherwise, sockets go to {}", lone_agent::socket_path("default").display());
    lone_agent::serve(socket.as_ref(), exec.as_ref(), hosts.parse()?)
}

//! Functions that a driver has and does not use: the CPU time that they take, and the memory that each costs.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use virtnet_netlink::Namespace;
use virtnet_soft::driver::{Driver, Options};
use virtnet_soft::{Carries, Function, Program, Socket, Tap, Workers};

use crate::process::Process;
use crate::{Result, features, ip, settings};

/// All VFs of two PFs.
const FUNCTIONS: usize = 504;
const SECONDS: u64 = 10;

/// What the two processes have at a time: memory in bytes, and open files.
fn held(processes: [Process; 2]) -> Result<[(u64, usize); 2]> {
    let held = |process: Process| -> Result<_> { Ok((process.memory()?, process.files()?)) };
    Ok([held(processes[0])?, held(processes[1])?])
}

/// The parent's side is this process, and the guests are another.
pub(crate) fn measure() -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _guard = runtime.enter();
    let namespace = Namespace::new()?;
    let folder = tempfile::tempdir()?;
    let workers = Workers::start(Program::new(env!("CARGO_BIN_EXE_virtnet-soft-worker"), 2));
    let mut watch = workers.watch();
    let pid = runtime.block_on(watch.wait_for(|state| state.pid.is_some()))?.pid.ok_or("no worker runs")?;
    let processes = [Process::new(std::process::id())?, Process::new(pid)?];
    let before = held(processes)?;
    let mut functions = Vec::new();
    for number in 0..FUNCTIONS {
        let name = format!("rep{number}");
        let tap = namespace.run(|| {
            // Packets of the kernel's own are no rest.
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
            Tap::create(&name.parse().map_err(std::io::Error::other)?, 1)
        })??;
        ip(&namespace, &format!("link set {name} up"))?;
        let socket = Socket::Serve(folder.path().join(number.to_string()));
        functions.push(Function::open(
            &workers,
            Some(Arc::new(tap)),
            &settings()?,
            Carries { offloads: true },
            socket,
        )?);
    }
    let mut guests = Command::new(std::env::current_exe()?)
        .args(["--guests".as_ref(), folder.path().as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let told = guests.stdout.take().ok_or("guests without an output")?;
    BufReader::new(told).read_line(&mut String::new())?;
    for function in &functions {
        runtime.block_on(function.watch().wait_for(|state| state.in_use))?;
    }
    // What the last of them left to do is no rest.
    std::thread::sleep(Duration::from_secs(1));
    let cpu = || -> Result<_> { Ok([processes[0].cpu()?, processes[1].cpu()?]) };
    let began = cpu()?;
    std::thread::sleep(Duration::from_secs(SECONDS));
    let ended = cpu()?;
    let after = held(processes)?;
    drop(guests.stdin.take());
    guests.wait()?;
    let part = |index: usize| {
        let (memory, files) =
            (after[index].0.saturating_sub(before[index].0), after[index].1 - before[index].1);
        let each = |count: f64| (count / FUNCTIONS as f64 * 10.0).round() / 10.0;
        json!({
            "cpuMicroseconds": ((ended[index] - began[index]) / 1000.0).round(),
            "memoryBytes": after[index].0,
            "bytesPerFunction": each(memory as f64).round(),
            "filesPerFunction": each(files as f64),
        })
    };
    Ok(json!({ "functions": FUNCTIONS, "seconds": SECONDS, "parent": part(0), "worker": part(1) }))
}

/// Drives the functions of the sockets in a folder until its standard input ends: the guests' side of the above.
pub(crate) fn guests(folder: &Path) -> Result<()> {
    let mut drivers = Vec::new();
    for number in 0..FUNCTIONS {
        let options =
            Options { features: features()?, protocol: crate::side::PROTOCOL, ..Options::default() };
        let mut driver = Driver::start(UnixStream::connect(folder.join(number.to_string()))?, options)?;
        driver.fill(0);
        drivers.push(driver);
    }
    let mut out = std::io::stdout();
    out.write_all(b"ready\n")?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

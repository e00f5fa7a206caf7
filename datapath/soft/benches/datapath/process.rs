//! [`Process`]: one that is measured. It stands still while work is laid before it, so that none of its time is spent on waiting,
//! be it in polling.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::Result;

/// The CPU time of a clock, in nanoseconds.
pub(crate) fn nanoseconds(clock: ClockId) -> nix::Result<f64> {
    let time = clock_gettime(clock)?;
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}

/// Two CPUs that this process may run on: one for the guest and the network, one for what is measured.
pub(crate) fn two_cpus() -> Result<[usize; 2]> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false));
    let both = cpus.next().zip(cpus.next());
    both.map(<[usize; 2]>::from).ok_or_else(|| "two CPUs are needed: one of them for what is measured".into())
}

/// Has a thread, 0 the calling one, run on a CPU alone.
pub(crate) fn pin(thread: i32, cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(thread), &set)
}

/// A child of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pid: Pid,
    clock: ClockId,
}

impl Process {
    pub(crate) fn new(pid: u32) -> Result<Self> {
        let pid = Pid::from_raw(pid.try_into()?);
        Ok(Self { pid, clock: clock_getcpuclockid(pid)? })
    }

    /// Has all its threads run on a CPU alone.
    pub(crate) fn pin(&self, cpu: usize) -> Result<()> {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let task = task?.file_name();
            pin(task.to_string_lossy().parse()?, cpu)?;
        }
        Ok(())
    }

    /// Has it stand still; it does when this returns, and the kernel has counted all that it has run on the second CPU.
    ///
    /// That it stands still is told a moment before it leaves its CPU, and only then is counted what it has run since the last tick
    /// of the clock. Once this thread was there, it has left.
    pub(crate) fn stop(&self, [ours, its]: [usize; 2]) -> Result<()> {
        kill(self.pid, Signal::SIGSTOP)?;
        waitid(Id::Pid(self.pid), WaitPidFlag::WSTOPPED)?;
        pin(0, its)?;
        pin(0, ours)?;
        Ok(())
    }

    /// Has it go on.
    pub(crate) fn go_on(&self) -> Result<()> {
        Ok(kill(self.pid, Signal::SIGCONT)?)
    }

    /// The CPU time that it has taken, in nanoseconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        Ok(nanoseconds(self.clock)?)
    }

    /// The memory that is its own, and its part of what it shares (`Pss` of proc(5)), in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))?;
        let kibibytes = smaps.lines().find_map(|line| line.strip_prefix("Pss:")?.strip_suffix("kB"));
        Ok(kibibytes.ok_or("smaps_rollup without Pss")?.trim().parse::<u64>()? * 1024)
    }

    /// How many files it has open.
    pub(crate) fn files(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid))?.count())
    }
}

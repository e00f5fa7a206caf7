//! [`Peer`]: DPDK's vhost and TAP drivers, with `dpdk-testpmd` between them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use virtnet_netlink::Namespace;
use virtnet_soft::driver::Wire;

use crate::Result;

/// Its TAP.
pub(crate) const NETDEV: &str = "dtap0";

/// It ends with this.
pub(crate) struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Peer {
    /// Starts it with a function's socket, to forward on the second of two CPUs.
    pub(crate) fn start(namespace: &Namespace, socket: &Path, cpus: [usize; 2]) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/dpdk/get.sh");
        let output = Command::new(script).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let told = String::from_utf8_lossy(&output.stdout);
        let told = |name: &str| {
            let line = told.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| *key == name);
            line.map(|(_, value)| value.to_owned())
                .ok_or_else(|| format!("tests/dpdk/get.sh tells no {name}"))
        };
        let (testpmd, drivers, libraries) = (told("testpmd")?, told("drivers")?, told("libraries")?);
        let mut command = Command::new(testpmd);
        command.arg("-l").arg(format!("{},{}", cpus[0], cpus[1]));
        command.args("--no-huge --no-shconf --no-telemetry --no-pci -m 512".split(' '));
        for driver in ["bus_vdev", "mempool_ring", "net_vhost", "net_tap"] {
            command.arg("-d").arg(format!("{drivers}/librte_{driver}.so"));
        }
        command.arg("--vdev").arg(format!("net_vhost0,iface={},queues=1", socket.display()));
        command.arg("--vdev").arg(format!("net_tap0,iface={NETDEV}"));
        let rest = "-- --total-num-mbufs=32768 --disable-link-check --no-flush-rx --no-lsc-interrupt --forward-mode=io";
        command.args(rest.split(' '));
        if !libraries.is_empty() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut peer = Self(namespace.run(|| command.spawn())??);
        // Nothing tells that it forwards: its TAP is up once both its ports are started.
        let began = Instant::now();
        while namespace.run(|| Wire::open_to_send(NETDEV).and_then(|wire| wire.send(&[0; 70])))?.is_err() {
            if let Some(status) = peer.0.try_wait()? {
                return Err(format!("dpdk-testpmd ended before it forwarded: {status}").into());
            }
            if began.elapsed() > Duration::from_secs(20) {
                return Err("dpdk-testpmd does not set its TAP up".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(peer)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

//! Frames of two functions pass through the bridge as their ports' VLANs say.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use virtnet_model::{IfName, Netdevs};
use virtnet_netlink::{Namespace, Taps};
use virtnet_tests::real_world::RealWorld;
use virtnet_tests::world::DPU;

/// The netdev of a host's driver.
const NETDEV: &str = "eth0";
/// What a frame takes at most to arrive, on a machine that is busy too.
const ARRIVES: Duration = Duration::from_secs(20);
/// After this long a frame is one that does not arrive.
const LOST: Duration = Duration::from_secs(2);

/// What is behind a function: a namespace with a netdev whose frames are the function's.
struct Host {
    namespace: Arc<Namespace>,
    taps: Taps,
    /// The VLAN of the host's netdev; 0: none.
    vlan: Arc<AtomicU16>,
    stop: Arc<AtomicBool>,
    pumps: Vec<JoinHandle<()>>,
}

impl Host {
    /// A host of this address on the function whose representor is named.
    fn new(world: &RealWorld, representor: &str, address: Ipv4Addr) -> Self {
        let namespace = Arc::new(Namespace::new().unwrap());
        let taps = Taps::new(Some(Arc::clone(&namespace)));
        let netdev: IfName = NETDEV.parse().unwrap();
        taps.appear(&netdev).unwrap();
        let (near, far) =
            (taps.end(&netdev).unwrap(), world.taps.end(&representor.parse().unwrap()).unwrap());
        let (stop, vlan) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU16::new(0)));
        let pumps = [(Arc::clone(&near), Arc::clone(&far), true), (far, near, false)]
            .map(|(from, to, out)| {
                let (stop, vlan) = (Arc::clone(&stop), Arc::clone(&vlan));
                from.set_nonblocking(true).unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 2048];
                    while !stop.load(Ordering::Relaxed) {
                        let Ok(length) = from.recv(&mut buffer) else {
                            std::thread::sleep(Duration::from_millis(1));
                            continue;
                        };
                        let (frame, vlan) = (&buffer[..length], vlan.load(Ordering::Relaxed));
                        let frame = if out { tagged(frame, vlan) } else { untagged(frame, vlan) };
                        if let Some(frame) = frame {
                            // A netdev that is down takes none, as one whose cable is out.
                            let _ = to.send(&frame);
                        }
                    }
                })
            })
            .into();
        let host = Self { namespace, taps, vlan, stop, pumps };
        host.ip(&["address", "add", &format!("{address}/24"), "dev", NETDEV]);
        host.ip(&["link", "set", NETDEV, "up"]);
        host
    }

    fn ip(&self, arguments: &[&str]) {
        let status = self.namespace.run(|| Command::new("ip").args(arguments).status()).unwrap().unwrap();
        assert!(status.success(), "ip {arguments:?}");
    }

    /// From now on its netdev is one of this VLAN.
    fn use_vlan(&self, vlan: u16) {
        self.vlan.store(vlan, Ordering::Relaxed);
    }

    fn socket(&self, address: Ipv4Addr) -> UdpSocket {
        self.namespace.run(|| UdpSocket::bind((address, 7777))).unwrap().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for pump in self.pumps.drain(..) {
            let _ = pump.join();
        }
        self.taps.vanish(&NETDEV.parse().unwrap());
    }
}

/// The two bytes of IEEE 802.1Q that stand after the addresses of a frame with a tag.
const TPID: [u8; 2] = [0x81, 0x00];

/// A frame as a netdev of this VLAN sends it.
fn tagged(frame: &[u8], vlan: u16) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(12)?;
    match vlan {
        0 => Some(frame.to_vec()),
        vlan => Some([addresses, &TPID, &vlan.to_be_bytes(), rest].concat()),
    }
}

/// A frame as a netdev of this VLAN takes it.
fn untagged(frame: &[u8], vlan: u16) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(12)?;
    match (rest, vlan) {
        ([0x81, 0x00, ..], 0) => None,
        (_, 0) => Some(frame.to_vec()),
        ([0x81, 0x00, high, low, rest @ ..], vlan) => {
            let found = u16::from_be_bytes([*high, *low]) & 0x0fff;
            (found == vlan).then(|| [addresses, rest].concat())
        }
        _ => None,
    }
}

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Whether a datagram of the first reaches the second within this time. It is sent again and again: the bridge learns, and
/// addresses are resolved.
fn reaches(from: &UdpSocket, to: &UdpSocket, within: Duration) -> bool {
    to.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let begun = std::time::Instant::now();
    let mut buffer = [0; 64];
    // What was sent before counts for nothing.
    let word = format!("{begun:?}");
    while begun.elapsed() < within {
        let _ = from.send_to(word.as_bytes(), to.local_addr().unwrap());
        if to
            .recv(&mut buffer)
            .is_ok_and(|length| buffer[..length] == *word.as_bytes().get(..64).unwrap_or(word.as_bytes()))
        {
            return true;
        }
    }
    false
}

fn spec(port: &Value) -> Value {
    json!({"dpu": DPU, "function": {"hotplug": {}}, "port": port})
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_pass_through_the_bridge_as_the_vlans_say() {
    let world = RealWorld::new("").await.unwrap();
    let _agent = world.agent().unwrap();
    let plain = json!({"bridge": "ovsbr1"});
    let access = |tag: u16| json!({"bridge": "ovsbr1", "tag": tag});
    let set = async |a: &Value, b: &Value| {
        world.apply("a", spec(a)).await.unwrap();
        world.apply("b", spec(b)).await.unwrap();
        world.until_ready(2).await.unwrap();
    };
    set(&plain, &plain).await;
    let host_a = Host::new(&world, &world.representor("a").await.unwrap(), A);
    let host_b = Host::new(&world, &world.representor("b").await.unwrap(), B);
    let (a, b) = (host_a.socket(A), host_b.socket(B));
    assert!(reaches(&a, &b, ARRIVES) && reaches(&b, &a, ARRIVES), "without VLANs");
    set(&access(100), &access(200)).await;
    assert!(!reaches(&a, &b, LOST), "from one VLAN to another");
    set(&access(100), &access(100)).await;
    assert!(reaches(&a, &b, ARRIVES) && reaches(&b, &a, ARRIVES), "within a VLAN");
    let mut down = spec(&access(100));
    down["linkState"] = json!("Down");
    world.apply("b", down).await.unwrap();
    world.until_ready(2).await.unwrap();
    assert!(!reaches(&a, &b, LOST), "to a link that is down");
    set(&json!({"bridge": "ovsbr1", "trunks": [100, 300]}), &access(100)).await;
    assert!(!reaches(&a, &b, LOST), "without a tag into a trunk");
    host_a.use_vlan(100);
    assert!(reaches(&a, &b, ARRIVES) && reaches(&b, &a, ARRIVES), "with a tag into a trunk");
    set(&json!({"bridge": "ovsbr1", "trunks": [300]}), &access(100)).await;
    assert!(!reaches(&a, &b, LOST), "with a tag that is none of the trunk's");
}

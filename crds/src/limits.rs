//! The bounds that the schemas and the code share. Each says where it comes from.

/// Longest name of a Kubernetes object (RFC 1123 subdomain), in bytes.
pub const NAME_MAX: u32 = 253;
/// Smallest MTU of an IPv4 link (RFC 791), in bytes.
pub const MTU_MIN: u16 = 68;
/// Largest MTU that a virtio-net function of a BlueField takes, in bytes.
pub const MTU_MAX: u16 = 9978;
/// Longest name of a Linux network interface (IFNAMSIZ less the final NUL), in bytes.
pub const INTERFACE_NAME_MAX: u32 = 15;
/// First VLAN id that may be used (0 means priority tags).
pub const VLAN_MIN: u16 = 1;
/// Last VLAN id that may be used (4095 is reserved by IEEE 802.1Q).
pub const VLAN_MAX: u16 = 4094;
/// Vectors in the largest MSI-X table that PCIe knows.
pub const MSIX_MAX: u16 = 2048;
/// Largest split virtqueue of the virtio specification, in descriptors.
pub const QUEUE_SIZE_MAX: u16 = 32768;
/// First SF number that the virtio-net controller uses.
pub const SF_NUMBER_MIN: u32 = 1000;
/// Last SF number whose representor's name, such as en3f0pf0sf65535, is the name of a network interface.
pub const SF_NUMBER_MAX: u32 = 65535;

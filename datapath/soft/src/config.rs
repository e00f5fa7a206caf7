//! The configuration space of a function (virtio 1.2, section 5.1.4).

use virtnet_model::Mac;

/// What a driver reads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) mac: Mac,
    /// Whether there is a link.
    pub(crate) link: bool,
    pub(crate) pairs: u16,
    /// In bytes.
    pub(crate) mtu: u16,
}

impl Config {
    /// Bytes that vhost-user lets a configuration space have.
    pub(crate) const MAX: usize = 256;

    /// `count` bytes from `offset`; beyond the fields that there are, zeros. `None`: outside of any configuration space.
    pub(crate) fn read(&self, offset: usize, count: usize) -> Option<Vec<u8>> {
        let mut space = [0; Self::MAX];
        space[..6].copy_from_slice(&self.mac.octets());
        space[6..8].copy_from_slice(&u16::from(self.link).to_le_bytes());
        space[8..10].copy_from_slice(&self.pairs.to_le_bytes());
        space[10..12].copy_from_slice(&self.mtu.to_le_bytes());
        // No speed and duplex mode that could be told: a TAP has none.
        space[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        space[16] = u8::MAX;
        Some(space.get(offset..offset.checked_add(count)?)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let mac = "0c:c4:7a:ff:22:93".parse().unwrap();
        let config = Config { mac, link: true, pairs: 4, mtu: 9000 };
        assert_eq!(config.read(0, 12).unwrap(), [0x0c, 0xc4, 0x7a, 0xff, 0x22, 0x93, 1, 0, 4, 0, 0x28, 0x23]);
        assert_eq!(config.read(10, 2).unwrap(), [0x28, 0x23]);
        assert_eq!(config.read(250, 6).unwrap(), [0; 6]);
        assert!(config.read(250, 7).is_none() && config.read(usize::MAX, 2).is_none());
    }
}

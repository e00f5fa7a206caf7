//! What the system knows of a representor: the index of its netdev.

use virtnet_model::IfName;

/// The index of the netdev; `None`: there is none of the name here, as on a DPU that is simulated.
pub(crate) fn ifindex(name: &IfName) -> Option<u32> {
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_has_an_index_and_what_is_not_there_has_none() {
        assert_eq!(ifindex(&"lo".parse().unwrap()), Some(1));
        assert_eq!(ifindex(&"no-such-netdev".parse().unwrap()), None);
    }
}

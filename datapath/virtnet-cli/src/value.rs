//! Arguments from text: numbers of a range and feature bits. Pure.

use virtnet_model::{Features, ParseError};

/// A number of a type that knows its range.
pub(crate) fn number<T: TryFrom<u32, Error = ParseError>>(text: &str) -> Result<T, String> {
    let number: u32 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    T::try_from(number).map_err(|error| error.to_string())
}

/// Feature bits in hexadecimal. None at all stands for the controller's default.
pub(crate) fn features_or_default(text: &str) -> Result<Features, String> {
    let bits = Features::bits_of(text)
        .ok_or_else(|| format!("{text:?} is not 64 bits in hexadecimal such as 0x230047082b"))?;
    Features::from_bits(bits).map_err(|bit| format!("bit {bit} is no feature of virtio-net"))
}

/// Feature bits in hexadecimal, of which there must be one: a modification to the default can't be asked for, and whoever
/// means that by 0x0 would lose every feature.
pub(crate) fn features(text: &str) -> Result<Features, String> {
    let features = features_or_default(text)?;
    if features == Features::default() {
        return Err("0x0 means the controller's default at hot-plug only: name the bits to offer".to_owned());
    }
    Ok(features)
}

#[cfg(test)]
mod tests {
    use virtnet_model::{Mtu, QueueSize};

    use super::*;

    #[test]
    fn numbers_are_of_their_range() {
        assert_eq!(number::<Mtu>("9000").unwrap().get(), 9000);
        assert_eq!(number::<Mtu>("67").unwrap_err(), "\"67\" is not an MTU from 68 to 9978");
        assert_eq!(number::<Mtu>("4294968796").unwrap_err(), "\"4294968796\" is not a number");
        assert_eq!(
            number::<QueueSize>("1000").unwrap_err(),
            "\"1000\" is not a power of two from 2 to 32768"
        );
    }

    #[test]
    fn features_are_bits_in_hexadecimal() {
        assert_eq!(features("0x100400001").unwrap().to_string(), "CSUM,MQ,VERSION_1");
        assert_eq!(features_or_default("0X0").unwrap(), Features::default());
        assert!(features("0x0").unwrap_err().contains("at hot-plug only"));
        assert_eq!(features("0x100000000000").unwrap_err(), "bit 44 is no feature of virtio-net");
        for text in ["", "0x", "19", "0x+1", "0xg", "0x10000000000000000"] {
            assert!(features_or_default(text).is_err(), "{text}");
        }
    }
}

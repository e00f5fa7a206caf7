//! [`Address`]: where an OVSDB server listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where an OVSDB server listens, in the syntax of Open vSwitch's own tools (ovsdb(7), "Active database connection
/// methods").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix:PATH`
    Unix(PathBuf),
    /// `tcp:HOST:PORT`, an IPv6 address in brackets; without a port 6640, that of RFC 7047.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
}

/// A text that is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} is not the address of an OVSDB server: {why}")]
pub struct AddressError {
    /// The text.
    pub address: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Address {
    const PORT: u16 = 6640;
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = |why| AddressError { address: text.to_owned(), why };
        match text.split_once(':') {
            Some(("unix", "")) => Err(bad("unix: needs the path of a socket")),
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("tcp", rest)) => {
                let (host, port) = match rest.strip_prefix('[').map(|rest| rest.split_once(']')) {
                    Some(Some((host, port))) => {
                        (host, port.strip_prefix(':').or((port.is_empty()).then_some("")))
                    }
                    Some(None) => return Err(bad("the bracket before an IPv6 address is not closed")),
                    None => rest.split_once(':').map_or((rest, Some("")), |(host, port)| (host, Some(port))),
                };
                let port = match port {
                    Some("") => Self::PORT,
                    Some(port) => {
                        port.parse().map_err(|_| bad("the port is not a number from 0 to 65535"))?
                    }
                    None => return Err(bad("after the address comes :PORT or nothing")),
                };
                if host.is_empty() {
                    return Err(bad("tcp: needs a host"));
                }
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            Some(("ssl", _)) => Err(bad("TLS is not supported; use unix:PATH on the DPU itself")),
            _ => Err(bad("it begins with unix: or tcp:")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_open_vswitch_writes_them() {
        for text in ["unix:/var/run/openvswitch/db.sock", "tcp:127.0.0.1:6640", "tcp:[::1]:6641", "tcp:dpu:1"]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("tcp:dpu".parse::<Address>().unwrap().to_string(), "tcp:dpu:6640");
        assert_eq!("tcp:[::1]".parse::<Address>().unwrap().to_string(), "tcp:[::1]:6640");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, why) in [
            ("/var/run/db.sock", "begins with unix:"),
            ("unix:", "path of a socket"),
            ("tcp:", "needs a host"),
            ("tcp:h:70000", "from 0 to 65535"),
            ("tcp:[::1", "not closed"),
            ("tcp:[::1]6640", "comes :PORT"),
            ("ssl:h:6640", "TLS"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

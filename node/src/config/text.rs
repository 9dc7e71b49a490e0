//! How settings are written in flags and variables, where everything is text. Never reads the environment itself.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// A type of setting that can be written as text.
pub trait Text {
    /// Whether its flag may stand without a value.
    const SWITCH: bool = false;
    /// The TOML value that `text` means, or what was expected instead.
    fn value(text: &str) -> Result<toml::Value, String>;
}

macro_rules! text {
    ($($type:ty: $expected:literal),* $(,)?) => { $(
        impl Text for $type {
            const SWITCH: bool = matches!($expected.as_bytes(), b"true or false");
            fn value(text: &str) -> Result<toml::Value, String> {
                let expected = || format!("{text:?} is not {}", $expected);
                let parsed = <$type>::from_str(text).map_err(|_| expected())?;
                toml::Value::try_from(parsed).map_err(|_| expected())
            }
        }
    )* };
}

text! {
    String: "text",
    PathBuf: "a path",
    bool: "true or false",
    u64: "a whole number",
    u32: "a whole number",
    i64: "a whole number",
    Ipv4Addr: "an IPv4 address",
    IpAddr: "an IP address",
    SocketAddr: "an address and port such as 0.0.0.0:21",
    PortRange: "a range of ports such as 50000-50099, or 0",
}

impl<T: Text> Text for Option<T> {
    const SWITCH: bool = T::SWITCH;
    fn value(text: &str) -> Result<toml::Value, String> {
        T::value(text)
    }
}

impl Text for Vec<String> {
    fn value(text: &str) -> Result<toml::Value, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(toml::Value::Array(parts.map(toml::Value::from).collect()))
    }
}

/// Ports for data connections, both ends included; 0 to 0 is "any free one".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last, not less than the first.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a range of ports such as 50000-50099, or 0");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
        let (first, last) = (port(first)?, port(last)?);
        if first > last || (first == 0) != (last == 0) { Err(wrong()) } else { Ok(Self { first, last }) }
    }
}

impl TryFrom<String> for PortRange {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_are_checked() {
        assert_eq!("50000-50099".parse(), Ok(PortRange { first: 50_000, last: 50_099 }));
        assert_eq!("0".parse(), Ok(PortRange { first: 0, last: 0 }));
        for wrong in ["", "9-1", "0-7", "1-70000", "a-b", "-"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let value = Vec::<String>::value(" a:1, b:2,,").unwrap();
        assert_eq!(value, toml::Value::Array(vec!["a:1".into(), "b:2".into()]));
    }

    #[test]
    fn wrong_values_say_what_is_expected() {
        assert_eq!(u64::value("soon").unwrap_err(), "\"soon\" is not a whole number");
        assert_eq!((bool::SWITCH, u64::SWITCH), (true, false));
    }
}

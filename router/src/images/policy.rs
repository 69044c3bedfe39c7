//! What may be fetched, and how patiently.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use url::{Host, Url};

use super::address;

/// Something an operator allows besides the public internet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AllowedTarget {
    /// Every address of a network, under whatever name it was found.
    Network(IpNet),
    /// One host name, whatever addresses it has. Sub-domains are not included.
    Host(String),
}

/// A string that is no address, network or host name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no address, network (10.0.0.0/8) or host name")]
pub struct InvalidTarget(String);

impl FromStr for AllowedTarget {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::Network(network));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        // Through the URL's own parser, so that names compare in the form in which they will be asked.
        match Host::parse(text) {
            Ok(Host::Domain(name)) if !text.contains(['/', ':', '@']) => Ok(Self::Host(name)),
            _ => Err(InvalidTarget(text.to_owned())),
        }
    }
}

/// Which URLs are fetched and within which bounds. The default reaches the public internet and nothing else.
#[derive(Clone, Debug)]
pub struct FetchPolicy {
    /// `false` refuses every URL; `data:` URIs still work.
    pub enabled: bool,
    /// Addresses and hosts that are reached although they are not global.
    pub allow: Vec<AllowedTarget>,
    /// Redirects that are followed; each target is judged like the first URL.
    pub max_redirects: usize,
    /// Name lookup, TCP and TLS of one connection.
    pub connect_timeout: Duration,
    /// A download may be this late before its rate counts.
    pub slow_start: Duration,
    /// Average rate, after [`FetchPolicy::slow_start`], below which a download is given up.
    pub min_bytes_per_second: u32,
    /// Downloads at the same time.
    pub max_fetches: usize,
    /// Downloads from the same host at the same time.
    pub max_fetches_per_host: usize,
}

impl Default for FetchPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            allow: Vec::new(),
            max_redirects: 3,
            connect_timeout: Duration::from_secs(3),
            slow_start: Duration::from_secs(3),
            min_bytes_per_second: 16 << 10,
            max_fetches: 64,
            max_fetches_per_host: 16,
        }
    }
}

impl FetchPolicy {
    /// Whether `host` may be connected to at `address`.
    pub(super) fn permits(&self, host: &str, address: IpAddr) -> bool {
        address::is_global(address) || self.allow.iter().any(|target| target.matches(host, address))
    }

    /// Whether the host of `url` is a name still to be looked up, or an address that is permitted.
    pub(super) fn permits_host(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Domain(name)) => !name.is_empty(),
            Some(Host::Ipv4(address)) => self.permits("", address.into()),
            Some(Host::Ipv6(address)) => self.permits("", address.into()),
            None => false,
        }
    }
}

impl AllowedTarget {
    fn matches(&self, host: &str, address: IpAddr) -> bool {
        match self {
            Self::Host(name) => name.eq_ignore_ascii_case(host),
            Self::Network(network) => {
                network.contains(&address) || unwrapped(address).is_some_and(|inner| network.contains(&inner))
            }
        }
    }
}

/// A network names the machines behind it, however their addresses are wrapped.
fn unwrapped(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V6(address) => address::embedded_v4(address).map(IpAddr::V4),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests;

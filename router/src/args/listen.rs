//! Where the router listens and who may ask: address, key, origins.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::parser::ValueSource;

const DEFAULT_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Address, key and origins.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Listening")]
pub struct ListenArgs {
    /// IP address to listen on [default: 127.0.0.1]. The variable counts only when it holds an address, because
    /// shells and Kubernetes put the machine's name there. Use 0.0.0.0 to be reachable from other machines.
    #[arg(long, env = "HOSTNAME", hide_env_values = true, value_name = "ADDRESS")]
    hostname: Option<String>,

    /// What `hostname` comes to.
    #[arg(skip = DEFAULT_ADDRESS)]
    address: IpAddr,

    /// Port to listen on; 0 takes a free one.
    #[arg(short, long, env = "PORT", default_value_t = 3000)]
    pub port: u16,

    /// Key that requests must carry as `Authorization: Bearer KEY`. Prefer the file or the variable: other users of
    /// this machine can read a command line.
    #[arg(long, env = "API_KEY", hide_env_values = true, conflicts_with = "api_key_file")]
    api_key: Option<ApiKey>,

    /// File that holds the key; white space around it is dropped.
    #[arg(long, env = "API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Origin that browsers may call from, `*` for any. Repeatable. None by default.
    #[arg(long, env = "CORS_ALLOW_ORIGIN", value_delimiter = ',', value_name = "ORIGIN")]
    pub cors_allow_origin: Vec<String>,
}

impl ListenArgs {
    /// Where to listen.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// The key that requests must carry, from the flag, the variable or the file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no key.
    pub fn api_key(&self) -> io::Result<Option<ApiKey>> {
        let Some(file) = &self.api_key_file else { return Ok(self.api_key.clone()) };
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("--api-key-file {}: {error}", file.display()));
        let text = std::fs::read_to_string(file).map_err(named)?;
        let key = text.trim().parse().map_err(|reason| named(io::Error::new(io::ErrorKind::InvalidData, reason)))?;
        Ok(Some(key))
    }

    #[cfg(test)]
    pub(super) fn set_hostname(&mut self, hostname: &str) {
        self.hostname = Some(hostname.to_owned());
    }

    /// Settles the address. `asked_for` says where the host name came from: a flag is an order, the variable a hint.
    pub(super) fn resolve_address(&mut self, asked_for: Option<ValueSource>) -> Result<(), InvalidHostname> {
        let Some(hostname) = &self.hostname else { return Ok(()) };
        match (hostname.parse(), asked_for) {
            (Ok(address), _) => self.address = address,
            (Err(_), Some(ValueSource::EnvVariable)) => {}
            (Err(_), _) => return Err(InvalidHostname(hostname.clone())),
        }
        Ok(())
    }
}

/// `--hostname` was given a name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("--hostname takes an IP address such as 127.0.0.1 or 0.0.0.0, not {0:?}")]
pub struct InvalidHostname(String);

/// A secret that never shows itself in logs.
#[derive(Clone, Eq, PartialEq)]
pub struct ApiKey(String);

impl ApiKey {
    /// The secret itself, for comparing.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ApiKey {
    type Err = String;

    fn from_str(key: &str) -> Result<Self, Self::Err> {
        if key.is_empty() {
            return Err("the API key is empty".to_owned());
        }
        Ok(Self(key.to_owned()))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ApiKey(…)")
    }
}

//! `[control]` of cluster.toml: the etcd that keeps the list of hosts.
//!
//! Owns its keys, their checks and the files they name. Must not speak to etcd.

use super::{ConfigError, Source, key};
use crate::limits::{CONFIG_BYTES_MAX, ENDPOINTS_MAX};
use serde::Deserialize;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// How long a host that is silent stays a member, where the file says nothing.
const LEASE_SECONDS_DEFAULT: u64 = 5;
const LEASE_SECONDS: std::ops::RangeInclusive<u64> = 2..=60;

/// How etcd is reached, and how long a lease lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `http://` or `https://` addresses of its servers.
    pub endpoints: Vec<String>,
    /// How long a host that is silent stays a member.
    pub lease: Duration,
    /// User and password.
    pub login: Option<(String, String)>,
    /// What TLS rests on; none: plain HTTP.
    pub tls: Option<TlsConfig>,
}

/// PEM files, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Whom to trust.
    pub ca: Vec<u8>,
    /// Our certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ControlTable {
    etcd: Spanned<Vec<Spanned<String>>>,
    lease_seconds: Option<Spanned<u64>>,
    user: Option<Spanned<String>>,
    password_file: Option<Spanned<PathBuf>>,
    ca_file: Option<Spanned<PathBuf>>,
    cert_file: Option<Spanned<PathBuf>>,
    cert_key_file: Option<Spanned<PathBuf>>,
}

/// Checks the table and reads its files, which lie in `directory` unless their paths are absolute.
pub(super) fn check(source: &Source<'_>, table: &ControlTable, directory: &Path) -> Result<EtcdConfig, ConfigError> {
    let span = table.etcd.span();
    let addresses = table.etcd.get_ref();
    if addresses.is_empty() || addresses.len() > ENDPOINTS_MAX {
        let what = format!("etcd: {} addresses; list 1 to {ENDPOINTS_MAX} like \"http://10.0.0.1:2379\"", addresses.len());
        return Err(source.invalid(&span, what));
    }
    let is_tls = addresses[0].get_ref().starts_with("https://");
    for address in addresses {
        let text = address.get_ref();
        let rest = text.strip_prefix(if is_tls { "https://" } else { "http://" });
        if rest.is_none_or(|rest| rest.is_empty() || rest.contains(['/', ' ', '@'])) {
            let what = format!("etcd = \"{text}\": write all like \"http://10.0.0.1:2379\", or all with https");
            return Err(source.invalid(&address.span(), what));
        }
    }
    let lease = match &table.lease_seconds {
        None => LEASE_SECONDS_DEFAULT,
        Some(seconds) if LEASE_SECONDS.contains(seconds.get_ref()) => *seconds.get_ref(),
        Some(seconds) => {
            let (from, to) = (LEASE_SECONDS.start(), LEASE_SECONDS.end());
            let what = format!("lease_seconds = {}: write {from} to {to}", seconds.get_ref());
            return Err(source.invalid(&seconds.span(), what));
        }
    };
    let files = Files { source, directory };
    let login = files.login(table)?;
    let tls = if is_tls { Some(files.tls(table)?) } else { None };
    let for_tls = [("ca_file", &table.ca_file), ("cert_file", &table.cert_file), ("cert_key_file", &table.cert_key_file)];
    if let (None, Some((name, Some(path)))) = (&tls, for_tls.iter().find(|(_, path)| path.is_some())) {
        return Err(source.invalid(&path.span(), format!("{name}: plain http has no certificates; write https in etcd")));
    }
    let endpoints = addresses.iter().map(|address| address.get_ref().clone()).collect();
    Ok(EtcdConfig { endpoints, lease: Duration::from_secs(lease), login, tls })
}

/// Reads what the table names.
struct Files<'a> {
    source: &'a Source<'a>,
    directory: &'a Path,
}

impl Files<'_> {
    fn login(&self, table: &ControlTable) -> Result<Option<(String, String)>, ConfigError> {
        match (&table.user, &table.password_file) {
            (None, None) => Ok(None),
            (Some(user), None) => Err(self.source.invalid(&user.span(), "user without password_file; add it".to_owned())),
            (None, Some(path)) => Err(self.source.invalid(&path.span(), "password_file without user; add it".to_owned())),
            (Some(user), Some(path)) => {
                let bytes = self.read("password_file", path, true)?;
                let text = String::from_utf8(bytes).ok().map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
                let text = text.filter(|text| !text.is_empty());
                let wrong = || {
                    self.source.invalid(&path.span(), format!("{}: write one line of text to it", told("password_file", path)))
                };
                Ok(Some((user.get_ref().clone(), text.ok_or_else(wrong)?)))
            }
        }
    }

    fn tls(&self, table: &ControlTable) -> Result<TlsConfig, ConfigError> {
        let identity = match (&table.cert_file, &table.cert_key_file) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((self.pem("cert_file", cert, false)?, self.pem("cert_key_file", key, true)?)),
            (Some(path), None) => {
                return Err(self.source.invalid(&path.span(), "cert_file without cert_key_file; add it".to_owned()));
            }
            (None, Some(path)) => {
                return Err(self.source.invalid(&path.span(), "cert_key_file without cert_file; add it".to_owned()));
            }
        };
        let Some(path) = &table.ca_file else {
            let what = "etcd: https without ca_file; name the certificate that signed etcd's".to_owned();
            return Err(self.source.invalid(&table.etcd.span(), what));
        };
        Ok(TlsConfig { ca: self.pem("ca_file", path, false)?, identity })
    }

    fn pem(&self, name: &str, path: &Spanned<PathBuf>, is_secret: bool) -> Result<Vec<u8>, ConfigError> {
        let bytes = self.read(name, path, is_secret)?;
        let is_pem = bytes.windows(11).any(|window| window == b"-----BEGIN ");
        let wrong = || self.source.invalid(&path.span(), format!("{}: not PEM (-----BEGIN ...)", told(name, path)));
        if is_pem { Ok(bytes) } else { Err(wrong()) }
    }

    fn read(&self, name: &str, path: &Spanned<PathBuf>, is_secret: bool) -> Result<Vec<u8>, ConfigError> {
        let wrong = |what: String| self.source.invalid(&path.span(), format!("{}: {what}", told(name, path)));
        let file = File::open(self.directory.join(path.get_ref()));
        let file = file.map_err(|error| wrong(format!("cannot be opened ({error}); correct the path")))?;
        if is_secret {
            key::check_private(&file).map_err(wrong)?;
        }
        let mut bytes = Vec::new();
        let read = file.take(CONFIG_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(|error| wrong(format!("cannot be read ({error})")))?;
        Ok(bytes)
    }
}

fn told(name: &str, path: &Spanned<PathBuf>) -> String {
    format!("{name} = \"{}\"", path.get_ref().display())
}

//! The two TOML files: what the cluster is, and what this node is.
//!
//! Owns the keys, their defaults and every check of them. Must not know what the values are used for.

mod cluster;
mod control;
mod key;
mod node;

pub use cluster::{ClusterConfig, NodeEntry};
pub use control::EtcdConfig;
#[cfg(feature = "etcd")]
pub use control::TlsConfig;
pub use node::NodeConfig;

use crate::exit::{Exit, Failure};
use crate::limits::CONFIG_BYTES_MAX;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a configuration is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; give its path with {flag}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Flag that names it.
        flag: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// A key or value is wrong.
    #[error("{path}:{line}: {what}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Which key, what is wrong, what to do.
        what: String,
    },
    /// The key file is not usable.
    #[error("key file {path}: {what}", path = path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// The node is not one of the cluster's.
    #[error("{path}: node `{name}` is not in the cluster ({known}); correct `name` or add it to [[nodes]]", path = path.display())]
    NotMember {
        /// The node's file.
        path: PathBuf,
        /// Its name.
        name: String,
        /// The cluster's names.
        known: String,
    },
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let exit = match error {
            ConfigError::Unreadable { .. } => Exit::ConfigUnreadable,
            ConfigError::Invalid { .. } => Exit::ConfigInvalid,
            ConfigError::Key { .. } => Exit::Key,
            ConfigError::NotMember { .. } => Exit::NotMember,
        };
        Self::new(exit, error)
    }
}

/// A configuration file's text, kept for line numbers.
struct Source<'a> {
    path: &'a Path,
    text: String,
}

impl<'a> Source<'a> {
    fn read(path: &'a Path, flag: &'static str) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_path_buf(), flag, source };
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(CONFIG_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
        Ok(Self { path, text })
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let message = error.message().replace('\n', " ");
            let what = match message.split(' ').next() {
                Some("unknown") => format!("{message}; correct or remove this key"),
                Some("missing") => format!("{message}; add this key"),
                Some("invalid") if self.key_at(span.start).is_some() => {
                    format!("{}: {message}; correct this value", self.key_at(span.start).unwrap_or_default())
                }
                _ => format!("{message}; correct this line, the file is TOML"),
            };
            self.invalid(&span, what)
        })
    }

    /// The key on the line of byte `place`.
    fn key_at(&self, place: usize) -> Option<&str> {
        let before = self.text.get(..place)?;
        let line = &self.text[before.rfind('\n').map_or(0, |end| end + 1)..];
        let (key, _) = line.lines().next()?.split_once('=')?;
        Some(key.trim())
    }

    fn invalid(&self, span: &Range<usize>, what: String) -> ConfigError {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        ConfigError::Invalid { path: self.path.to_path_buf(), line, what }
    }
}

/// Whether `name` can be a host's or cluster's name: it becomes part of a path and of messages.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

const NAME_RULE: &str = "use 1 to 64 letters, digits, dots, dashes or underscores";

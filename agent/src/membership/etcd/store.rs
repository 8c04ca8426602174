//! One connection to etcd, as far as membership needs it.
//!
//! Owns every request, each with a deadline, and the texts of what fails. Must not know when they are made.

use super::table::{Plan, Reading, Row};
use crate::config::{EtcdConfig, TlsConfig};
use crate::limits::{ETCD_DEADLINE, TRANSACTION_TRIES_MAX};
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, Identity, LeaseKeepAliveStream, LeaseKeeper,
    PutOptions, TlsOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use std::time::Duration;
use tokio::time::timeout;

/// A connection and the keys it looks at.
pub struct Store {
    client: Client,
    prefix: String,
    user: Option<String>,
}

impl Store {
    /// Connects, with the user's password if there is one.
    ///
    /// # Errors
    /// When nobody answers, or etcd refuses.
    pub async fn connect(config: &EtcdConfig, prefix: &str) -> Result<Self, String> {
        let mut options = ConnectOptions::new().with_connect_timeout(ETCD_DEADLINE).with_timeout(ETCD_DEADLINE);
        if let Some((user, password)) = &config.login {
            options = options.with_user(user, password);
        }
        if let Some(TlsConfig { ca, identity }) = &config.tls {
            let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
            if let Some((certificate, key)) = identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            options = options.with_tls(tls);
        }
        let user = config.login.as_ref().map(|(user, _)| user.clone());
        let client = within(user.as_deref(), Client::connect(&config.endpoints, Some(options))).await?;
        Ok(Self { client, prefix: prefix.to_owned(), user })
    }

    /// Everything below the prefix.
    ///
    /// # Errors
    /// As all requests: when etcd does not answer, or refuses.
    pub async fn read(&mut self) -> Result<Reading, String> {
        let options = GetOptions::new().with_prefix();
        let got = within(self.user.as_deref(), self.client.get(self.prefix.as_str(), Some(options))).await?;
        let row = |pair: &etcd_client::KeyValue| {
            let key = pair.key_str().ok()?.strip_prefix(&self.prefix)?.to_owned();
            Some((key, Row { value: pair.value().to_vec(), revision: pair.mod_revision(), lease: pair.lease() }))
        };
        let revision = got.header().map_or(0, etcd_client::ResponseHeader::revision);
        Ok(Reading { rows: got.kvs().iter().filter_map(row).collect(), revision })
    }

    /// Reads, and carries out what `plan` makes of it; again if others were faster.
    ///
    /// # Errors
    /// As above, and what `plan` says.
    pub async fn change<T>(&mut self, lease: i64, plan: impl Fn(&Reading) -> Result<(T, Plan), String>) -> Result<T, String> {
        for _ in 0..TRANSACTION_TRIES_MAX {
            let (value, plan) = plan(&self.read().await?)?;
            let key = |key: &str| format!("{}{key}", self.prefix);
            let when =
                plan.unchanged.iter().map(|(name, revision)| Compare::mod_revision(key(name), CompareOp::Equal, *revision));
            let puts = plan.puts.iter().map(|(name, value, is_leased)| {
                let options = is_leased.then(|| PutOptions::new().with_lease(lease));
                TxnOp::put(key(name), value.clone(), options)
            });
            let deletes = plan.deletes.iter().map(|name| TxnOp::delete(key(name), None));
            let transaction = Txn::new().when(when.collect::<Vec<_>>()).and_then(puts.chain(deletes).collect::<Vec<_>>());
            if within(self.user.as_deref(), self.client.txn(transaction)).await?.succeeded() {
                return Ok(value);
            }
        }
        Err(format!("{TRANSACTION_TRIES_MAX} transactions were overtaken by others"))
    }

    /// Writes one key that goes with `lease`.
    ///
    /// # Errors
    /// As all requests.
    pub async fn put(&mut self, key: &str, value: Vec<u8>, lease: i64) -> Result<(), String> {
        let options = PutOptions::new().with_lease(lease);
        within(self.user.as_deref(), self.client.put(format!("{}{key}", self.prefix), value, Some(options))).await.map(drop)
    }

    /// Removes one key.
    ///
    /// # Errors
    /// As all requests.
    pub async fn delete(&mut self, key: &str) -> Result<(), String> {
        within(self.user.as_deref(), self.client.delete(format!("{}{key}", self.prefix), None)).await.map(drop)
    }

    /// A new lease of this length.
    ///
    /// # Errors
    /// As all requests.
    pub async fn grant(&mut self, length: Duration) -> Result<i64, String> {
        let seconds = i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        Ok(within(self.user.as_deref(), self.client.lease_grant(seconds, None)).await?.id())
    }

    /// Whether `lease` still runs.
    ///
    /// # Errors
    /// As all requests.
    pub async fn is_running(&mut self, lease: i64) -> Result<bool, String> {
        Ok(within(self.user.as_deref(), self.client.lease_time_to_live(lease, None)).await?.ttl() > 0)
    }

    /// Ends a lease and all that goes with it.
    ///
    /// # Errors
    /// As all requests.
    pub async fn revoke(&mut self, lease: i64) -> Result<(), String> {
        within(self.user.as_deref(), self.client.lease_revoke(lease)).await.map(drop)
    }

    /// What prolongs `lease`, and the answers to it.
    ///
    /// # Errors
    /// As all requests.
    pub async fn keep(&mut self, lease: i64) -> Result<(LeaseKeeper, LeaseKeepAliveStream), String> {
        within(self.user.as_deref(), self.client.lease_keep_alive(lease)).await
    }

    /// All changes below the prefix after `revision`.
    ///
    /// # Errors
    /// As all requests.
    pub async fn watch(&mut self, revision: i64) -> Result<WatchStream, String> {
        let options = WatchOptions::new().with_prefix().with_start_revision(revision + 1);
        within(self.user.as_deref(), self.client.watch(self.prefix.as_str(), Some(options))).await
    }
}

/// Waits for one answer.
async fn within<T>(user: Option<&str>, answer: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(ETCD_DEADLINE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(told(user, &error)),
        Err(_) => Err(format!("no answer in {} s", ETCD_DEADLINE.as_secs())),
    }
}

/// An error in words that say what to do, where that is known.
pub fn told(user: Option<&str>, error: &Error) -> String {
    let Error::GRpcStatus(status) = error else { return error.to_string() };
    let said = status.message();
    match (said, user) {
        (said, Some(user)) if said.contains("authentication failed") => {
            format!("it refuses user `{user}` ({said}); correct user and password_file in cluster.toml")
        }
        (said, None) if said.contains("user name is empty") => {
            format!("it wants a user ({said}); set user and password_file in cluster.toml")
        }
        (said, Some(user)) if said.contains("permission denied") => {
            format!("user `{user}` lacks rights ({said}); grant it read and write below /dvm/")
        }
        (said, _) => said.to_owned(),
    }
}

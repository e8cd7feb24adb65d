//! Command-line options.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use bert_model::pipeline::Precision;
use bert_model::{Error, Result};
use clap::{Parser, ValueEnum};
use tracing_subscriber::filter::LevelFilter;

use crate::batching::BatchLimits;

/// Serves BERT models over HTTP
///
/// Serves whatever the models' heads can answer: embeddings (with the APIs of OpenAI and text-embeddings-inference),
/// classes, ranks, tags, answers, masks, and choices. http://127.0.0.1:8080/ is a page to try the models on, and
/// /openapi.json describes all routes.
#[derive(Debug, Clone, Parser)]
#[command(name = "bert-serve", version)]
pub struct Args {
    /// Model directory or name on the Hugging Face Hub; repeat the option to serve several; NAME=DIR serves one as NAME
    #[arg(long = "model", value_name = "MODEL", required = true)]
    pub models: Vec<String>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 picks a free one
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Device: auto, flex, ndarray, wgpu, vulkan, metal, cuda or rocm; cuda:1 is the second GPU
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Number type of the encoders' products: f32, bf16 (on flex, and on a GPU that has it) or int8 (on flex). The
    /// last two are faster and change the results slightly
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
    /// Maximum tokens per batch, padding included
    #[arg(long, value_name = "N", default_value_t = 16384)]
    pub max_batch_tokens: usize,
    /// How long a request may wait for others to share its batch while the model is busy, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2)]
    pub max_wait_ms: u64,
    /// Maximum number of requests waiting for a model; further ones get 429
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub max_queue: usize,
    /// Maximum request body size in bytes; larger bodies get 413
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    pub max_body: usize,
    /// Maximum number of texts per request; more get 413
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub max_inputs: usize,
    /// Truncate texts that are too long for the model unless the request says otherwise; by default they get 413
    #[arg(long)]
    pub auto_truncate: bool,
    /// Maximum number of open connections; further ones get 503
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub max_connections: usize,
    /// Seconds after which an unanswered request gets 504
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
    /// Seconds a client may take to send a request's head or body, or to read more of the response
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub read_timeout: Duration,
    /// Seconds that pending requests have to finish after SIGTERM or SIGINT
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub grace: Duration,
    /// File of API keys, one per line; requests then need `Authorization: Bearer KEY`
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Serve without API keys even if the address is reachable from other machines
    #[arg(long, conflicts_with = "api_key_file")]
    pub no_auth: bool,
    /// What to log on stderr
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "info")]
    pub log: Level,
}

/// Log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::OFF,
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("found {text:?}, expected seconds, such as 30 or 0.5");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    match Duration::try_from_secs_f64(seconds) {
        // Longer durations could overflow a clock.
        Ok(duration) if !duration.is_zero() => Ok(duration.min(Duration::from_secs(86_400))),
        _ => Err(wrong()),
    }
}

impl Args {
    /// Checks the options that clap cannot check alone.
    ///
    /// # Errors
    /// [`Error::Usage`] if a limit is out of range.
    pub fn check(&self) -> Result<()> {
        let numbers = [
            ("--max-batch-tokens", self.max_batch_tokens),
            ("--max-queue", self.max_queue),
            ("--max-body", self.max_body),
            ("--max-inputs", self.max_inputs),
            ("--max-connections", self.max_connections),
        ];
        for (name, number) in numbers {
            if number == 0 {
                return Err(Error::Usage(format!("{name}: found 0, expected at least 1")));
            }
        }
        if self.max_body > u32::MAX as usize {
            return Err(Error::Usage(format!("--max-body: found {}, expected less than 4 GiB", self.max_body)));
        }
        Ok(())
    }

    /// Resolves the address to listen on.
    ///
    /// # Errors
    /// If the host does not exist, or if it is not a loopback address and neither an API key file nor `--no-auth` was
    /// given.
    pub fn address(&self) -> Result<SocketAddr> {
        let wrong = |reason: String| Error::Usage(format!("--host {}: {reason}", self.host));
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let mut addresses = (host, self.port).to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
        let address = addresses.next().ok_or_else(|| wrong("found no address".into()))?;
        if !address.ip().is_loopback() && self.api_key_file.is_none() && !self.no_auth {
            let advice = "other machines can reach it: add --api-key-file FILE, or --no-auth to allow everyone";
            return Err(wrong(advice.into()));
        }
        Ok(address)
    }

    /// The limits for batching.
    pub fn batch_limits(&self) -> BatchLimits {
        BatchLimits {
            batch_tokens: self.max_batch_tokens,
            max_wait: Duration::from_millis(self.max_wait_ms.min(60_000)),
            queue: self.max_queue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> Args {
        Args::try_parse_from(["bert-serve", "--model", "m"].into_iter().chain(options.split_whitespace())).unwrap()
    }

    #[test]
    fn an_open_address_needs_a_key_or_a_word() {
        for (options, expected) in [
            ("", Ok("127.0.0.1:8080")),
            ("--port 0 --host ::1", Ok("[::1]:0")),
            ("--host [::1]", Ok("[::1]:8080")),
            ("--host 0.0.0.0 --no-auth", Ok("0.0.0.0:8080")),
            ("--host 0.0.0.0 --api-key-file keys", Ok("0.0.0.0:8080")),
            ("--host 0.0.0.0", Err("--no-auth")),
            ("--host 192.0.2.1", Err("--api-key-file")),
        ] {
            match (parse(options).address(), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.to_string(), expected),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, _) => panic!("{options}: {found:?}"),
            }
        }
    }

    #[test]
    fn durations_are_seconds_and_numbers_are_not_zero() {
        assert_eq!(parse("--timeout 0.5").timeout, Duration::from_millis(500));
        for wrong in ["--timeout 0", "--timeout -1", "--timeout soon", "--timeout nan", "--timeout inf"] {
            let arguments = ["bert-serve", "--model", "m"].into_iter().chain(wrong.split_whitespace());
            assert!(Args::try_parse_from(arguments).is_err(), "{wrong}");
        }
        assert!(parse("--max-queue 0").check().is_err());
        assert!(parse("").check().is_ok());
    }
}

//! BERT models over HTTP.
//!
//! In the order in which a request meets them: [`connection`] accepts and limits connections, [`app`] has the routes,
//! [`auth`] and [`body`] let a request in, [`routes`] turn it into questions to a model, [`batching`] puts the questions
//! of many clients into batches and runs them, and [`error`] is what a client is told otherwise. [`models`] opens what is
//! served, [`serve`] starts and ends the program, [`metrics`] counts.

// No request may panic the server.
#![deny(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod app;
pub mod args;
pub mod auth;
pub mod batching;
pub mod body;
pub mod connection;
pub mod error;
pub mod metrics;
pub mod models;
pub mod routes;
pub mod scores;
pub mod serve;

//! Serves BERT models over HTTP.
//!
//! A request passes through these modules in order: [`connection`] accepts and limits connections, [`app`] dispatches
//! to the routes, [`auth`] and [`body`] check and read the request, [`routes`] turn it into model inputs, and
//! [`batching`] groups the inputs of many clients into batches and runs them. [`error`] defines the error responses.
//! [`models`] opens the models, [`serve`] starts and stops the server, and [`metrics`] counts requests and batches.

// No request may make the server panic.
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

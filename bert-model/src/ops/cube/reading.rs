//! Asynchronous reads of a device's values.

use std::sync::{Mutex, PoisonError};

use burn::tensor::Tensor;
use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::future::{DynFut, block_on};
use cubecl::prelude::*;
use cubecl::server::ServerError;

use super::launch::contiguous;
use super::primitive;
use crate::error::{Error, Result};

/// The client of a tensor's device with a static lifetime, since a pending read borrows it. One client per device is
/// leaked.
fn client_of(x: &CubeTensor) -> &'static Client {
    static CLIENTS: Mutex<Vec<(CubeDevice, &'static Client)>> = Mutex::new(Vec::new());
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, client)) = clients.iter().find(|(device, _)| *device == x.device) {
        return client;
    }
    let client: &'static Client = Box::leak(Box::new(x.client.clone()));
    clients.push((x.device.clone(), client));
    client
}

/// Values being copied from a GPU. The copy is queued after all earlier launches, and before all later ones.
pub struct Reading {
    copy: DynFut<Result<Vec<cubecl::bytes::Bytes>, ServerError>>,
}

impl Reading {
    /// Starts the copy.
    pub fn start(values: Tensor<1>) -> Self {
        let values = contiguous(primitive(values));
        let client = client_of(&values);
        Self { copy: Box::pin(client.read_async(vec![values.handle])) }
    }

    /// Waits for the copy and returns the first `count` values.
    ///
    /// # Errors
    /// If the device failed, in the copy or in what it copies.
    pub fn wait(self, count: usize) -> Result<Vec<f32>> {
        let copies = block_on(self.copy);
        let copies = copies.map_err(|error| Error::Device { name: "GPU".into(), reason: error.to_string() })?;
        Ok(copies.iter().flat_map(|bytes| &f32::from_bytes(bytes)[..count]).copied().collect())
    }
}

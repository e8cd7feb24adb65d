//! Reads that the host does not wait for.

use burn::tensor::Tensor;
use cubecl::client::Client;
use cubecl::future::{DynFut, block_on};
use cubecl::prelude::*;
use cubecl::server::ServerError;

use super::launch::contiguous;
use super::primitive;

/// Numbers on their way from a GPU. The copy is queued behind everything launched so far, and before everything launched
/// later.
pub struct Reading {
    copy: DynFut<Result<Vec<cubecl::bytes::Bytes>, ServerError>>,
}

impl Reading {
    /// Begins to read.
    pub fn start(values: Tensor<1>) -> Self {
        let values = contiguous(primitive(values));
        let client: Client = values.client.clone();
        let handle = values.handle;
        Self { copy: Box::pin(client.read_async(vec![handle])) }
    }

    /// The numbers; NaN where the device has failed.
    pub fn wait(self, count: usize) -> Vec<f32> {
        let bytes = block_on(self.copy).ok().and_then(|mut copies| copies.pop());
        let values = bytes.map(|bytes| f32::from_bytes(&bytes)[..count].to_vec());
        values.unwrap_or_else(|| vec![f32::NAN; count])
    }
}

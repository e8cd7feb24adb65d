//! Asynchronous reads of a device's values.

use burn::prelude::*;

use crate::error::Result;

/// Values being copied from a device to the host. On a GPU the copy runs while the host continues.
pub struct Reading {
    count: usize,
    source: Source,
}

/// Where the values come from.
enum Source {
    Host(Vec<f32>),
    #[cfg(feature = "cube")]
    Device(crate::ops::cube::Reading),
}

impl Reading {
    /// Starts the copy of `values`, `[N]`.
    pub fn start(values: Tensor<1>) -> Self {
        let [count] = values.dims();
        #[cfg(feature = "cube")]
        if crate::ops::cube::runs(&values) {
            return Self { count, source: Source::Device(crate::ops::cube::Reading::start(values)) };
        }
        Self { count, source: Source::Host(values.into_data().iter::<f32>().collect()) }
    }

    /// Waits for the copy and returns the values.
    ///
    /// # Errors
    /// If the device failed.
    pub fn wait(self) -> Result<Vec<f32>> {
        let Self { count, source } = self;
        match source {
            Source::Host(values) => Ok(values.into_iter().take(count).collect()),
            #[cfg(feature = "cube")]
            Source::Device(reading) => reading.wait(count),
        }
    }
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reading").field("count", &self.count).finish_non_exhaustive()
    }
}

//! Matrix products by cuBLAS, NVIDIA's own library, which is several times as fast as products in CubeCL on newer
//! NVIDIA GPUs. It belongs to the CUDA toolkit; where it is not installed or does not work, products are CubeCL's.
//!
//! The library is called on the thread and the stream on which CubeCL launches its kernels, so that the two need not
//! wait for each other.

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_longlong};
use std::sync::OnceLock;

use burn::backend::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::CudaRuntime;
use cubecl::device_handle::DeviceHandle;
use cubecl::server::{BufferBinding, ServerError};
use cubecl_server::command::DeviceStream;
use cubecl_server::id::KernelId;
use cubecl_server::runtime::Runtime;
use cubecl_server::stream::{ExecuteScope, WriteScoped};
use cudarc::cublas::result::{CublasError, create_handle, destroy_handle, gemm_strided_batched_ex, set_stream};
use cudarc::cublas::sys::{
    cublasComputeType_t, cublasGemmAlgo_t, cublasHandle_t, cublasOperation_t, cudaDataType, cudaStream_t,
    is_culib_present,
};

use super::product::Layout;

/// CubeCL's queue of one CUDA device.
type Server = <CudaRuntime as Runtime>::Server;

/// Whether products of this tensor are cuBLAS's: whether it is on a CUDA device, and the library can be opened and
/// used.
pub fn runs(x: &CubeTensor) -> bool {
    static IS_USABLE: OnceLock<bool> = OnceLock::new();
    let service = x.client.service_id();
    let is_usable = || {
        // SAFETY: only tries to open the library.
        let is_installed = unsafe { is_culib_present() };
        // SAFETY: nothing has used the new handle.
        let try_out = |_: &mut Server| create_handle().and_then(|handle| unsafe { destroy_handle(handle) });
        is_installed && matches!(DeviceHandle::<Server>::new(service.device).submit_blocking(try_out), Ok(Ok(())))
    };
    service.service == TypeId::of::<Server>() && *IS_USABLE.get_or_init(is_usable)
}

/// How cuBLAS, whose matrices are column by column, reads a matrix stored row by row: as its transpose.
#[derive(Debug, Clone, Copy)]
struct Operand {
    element: cudaDataType,
    operation: cublasOperation_t,
    /// Elements from one row of the memory to the next.
    stride: c_int,
    /// Elements from one matrix of a batch to the next.
    batch_stride: c_longlong,
}

impl Operand {
    /// The operand, unless a tensor is neither a matrix, a batch of matrices, nor their transposed view, or repeats
    /// elements.
    fn of(x: &CubeTensor) -> Option<Self> {
        let (shape, strides) = (x.meta.shape(), x.meta.strides());
        let repeats = shape.iter().zip(strides.iter()).any(|(&extent, &stride)| stride == 0 && extent > 1);
        if !matches!(shape.len(), 2 | 3) || repeats {
            return None;
        }
        let Layout { is_by_rows, extent, stride, batch_stride } = Layout::of(x)?;
        let operation = if is_by_rows { cublasOperation_t::CUBLAS_OP_N } else { cublasOperation_t::CUBLAS_OP_T };
        let element = match x.dtype {
            DType::BF16 => cudaDataType::CUDA_R_16BF,
            DType::F16 => cudaDataType::CUDA_R_16F,
            DType::F32 => cudaDataType::CUDA_R_32F,
            _ => return None,
        };
        let (stride, batch_stride) = (stride.max(extent) as c_int, batch_stride as c_longlong);
        Some(Self { element, operation, stride, batch_stride })
    }
}

/// A product as cuBLAS computes it: the transposed output is the product of the transposed operands in reverse order.
#[derive(Debug, Clone, Copy)]
struct Product {
    lhs: Operand,
    rhs: Operand,
    output: Operand,
    /// The rows, inner extent and columns of the product, and the number of products.
    sizes: [c_int; 4],
}

impl Product {
    /// Queues the product on CubeCL's stream, on the thread of its queue.
    fn launch(self, server: &mut Server, buffers: [&BufferBinding; 3]) -> Result<(), ServerError> {
        let mut streams = server.write_streams().resolve(buffers[2].stream, buffers.into_iter())?;
        let mut address = |buffer: &BufferBinding| {
            let memory = streams.get(&buffer.stream).device_memory();
            memory.get_resource(buffer.memory.clone(), buffer.offset_start, buffer.offset_end).map(|buffer| buffer.ptr)
        };
        let [lhs, rhs, output] = [address(buffers[0])?, address(buffers[1])?, address(buffers[2])?];
        let stream = streams.current().signal().cast();
        let failure = |error| ServerError::Generic { reason: format!("{error:?}"), backtrace: Default::default() };
        let handle = handle(stream).map_err(failure)?;
        let [rows, inner, columns, count] = self.sizes;
        let compute = match self.lhs.element {
            cudaDataType::CUDA_R_32F => cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let (one, zero) = (1.0f32, 0.0f32);
        // SAFETY: the buffers live on this device, and hold the operands with these sizes and strides. `resolve` made
        // this stream wait for those that wrote them, and all that reuses their memory later waits for this one.
        unsafe {
            gemm_strided_batched_ex(
                handle,
                self.rhs.operation,
                self.lhs.operation,
                columns,
                rows,
                inner,
                (&raw const one).cast(),
                rhs as *const _,
                self.rhs.element,
                self.rhs.stride,
                self.rhs.batch_stride,
                lhs as *const _,
                self.lhs.element,
                self.lhs.stride,
                self.lhs.batch_stride,
                (&raw const zero).cast(),
                output as *mut _,
                self.output.element,
                self.output.stride,
                self.output.batch_stride,
                count,
                compute,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
            .map_err(failure)
        }
    }
}

/// The library's state for a stream, on the thread of its device's queue. Each stream has its own, because products
/// that run at the same time must not share a workspace (32 MiB on Hopper). CubeCL has a stream for each thread that
/// uses the device.
fn handle(stream: cudaStream_t) -> Result<cublasHandle_t, CublasError> {
    thread_local! {
        static HANDLES: RefCell<BTreeMap<cudaStream_t, cublasHandle_t>> = const { RefCell::new(BTreeMap::new()) };
    }
    if let Some(handle) = HANDLES.with_borrow(|handles| handles.get(&stream).copied()) {
        return Ok(handle);
    }
    let handle = create_handle()?;
    // SAFETY: both are of the thread's device.
    unsafe { set_stream(handle, stream)? };
    HANDLES.with_borrow_mut(|handles| handles.insert(stream, handle));
    Ok(handle)
}

/// Writes `lhs · rhs` into the contiguous `output`; see [`super::product::multiply`]. Returns false, without effect,
/// where cuBLAS does not apply.
pub fn multiply(lhs: &CubeTensor, rhs: &CubeTensor, output: &CubeTensor) -> bool {
    let is_on_device = |x: &CubeTensor| x.client.service_id() == output.client.service_id();
    if !(is_on_device(lhs) && is_on_device(rhs) && runs(output)) {
        return false;
    }
    let [Some(left), Some(right), Some(target)] = [lhs, rhs, output].map(Operand::of) else { return false };
    let shape = output.meta.shape();
    let rank = shape.len();
    let count = if rank == 3 { shape[0] } else { 1 };
    let sizes = [shape[rank - 2], lhs.meta.shape()[rank - 1], shape[rank - 1], count].map(|size| size as c_int);
    let product = Product { lhs: left, rhs: right, output: target, sizes };
    let [lhs, rhs, target] = [lhs, rhs, output].map(|x| x.handle.clone().binding());
    let queue = DeviceHandle::<Server>::new(output.client.service_id().device);
    queue.submit(move |server| {
        let mut written = server.write_set();
        written.push(target.clone());
        let (reads, stream) = ([&lhs, &rhs], target.stream);
        let scope = ExecuteScope::launching(server, KernelId::new::<Product>(), stream, reads.into_iter(), written);
        // A failure stays with the output: whoever reads it learns of it.
        let _ = scope.execute(|server| product.launch(server, [&lhs, &rhs, &target]));
    });
    true
}

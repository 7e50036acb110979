//! One device: its context, its stream, its kernels, and the first thing that went wrong.

use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use cudarc::driver::sys;
use sys::CUdevice_attribute_enum as Attribute;

use super::card::Card;
use super::module::Modules;
use super::timing::Mark;
use crate::fault::DeviceFault;

/// The driver interface that the kernels were compiled for, as the driver counts: 13.0.
const DRIVER: c_int = 13_000;

/// See the module. All work of a device goes through one of these, from one thread at a time.
pub struct Context {
    device: sys::CUdevice,
    raw: sys::CUcontext,
    stream: sys::CUstream,
    card: Card,
    modules: Modules,
    failed: AtomicBool,
    fault: Mutex<Option<DeviceFault>>,
    /// Launches are timed, and these are the marks between them.
    is_timing: AtomicBool,
    marks: Mutex<Vec<Mark>>,
}

// SAFETY: the driver's handles may be used from any thread in which the context is current, and
// every entry point makes it current first.
unsafe impl Send for Context {}
// SAFETY: as above; what changes after `open` is behind an atomic and a mutex.
unsafe impl Sync for Context {}

impl Context {
    /// Opens device number `ordinal` and loads all kernels.
    ///
    /// # Errors
    /// `NoDevice` or `Unusable`, and why.
    pub fn open(ordinal: u32) -> Result<Arc<Self>, DeviceFault> {
        initialise()?;
        let mut device = 0;
        // SAFETY: the driver is initialised and writes one integer.
        let found = unsafe { sys::cuDeviceGet(&raw mut device, ordinal as c_int) };
        if found != sys::CUresult::CUDA_SUCCESS {
            return Err(DeviceFault::NoDevice(format!(
                "the driver knows no device {ordinal}: {}",
                words(found)
            )));
        }
        let unusable = |what: &str, result| {
            DeviceFault::Unusable(format!("{what} of device {ordinal}: {}", words(result)))
        };
        let card = card(device).map_err(|result| unusable("the properties", result))?;
        let (mut raw, mut stream) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: `device` is one of the driver's; the context is current before a stream is made.
        unsafe {
            succeeded(sys::cuDevicePrimaryCtxRetain(&raw mut raw, device))
                .and_then(|()| succeeded(sys::cuCtxSetCurrent(raw)))
                .map_err(|result| unusable("the context", result))?;
            let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
            succeeded(sys::cuStreamCreate(&raw mut stream, flags))
                .map_err(|result| unusable("the stream", result))?;
        }
        let modules = Modules::load(&card)?;
        Ok(Arc::new(Self {
            device,
            raw,
            stream,
            card,
            modules,
            failed: AtomicBool::new(false),
            fault: Mutex::new(None),
            is_timing: AtomicBool::new(false),
            marks: Mutex::new(Vec::new()),
        }))
    }

    /// What the card is.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Bytes of device memory that nobody holds, and all there are.
    pub fn memory(&self) -> (u64, u64) {
        self.bind();
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current and the driver writes two integers.
        let result = unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) };
        self.note("asking for free memory", result);
        (free as u64, total as u64)
    }

    /// The first thing that went wrong, if anything did.
    pub fn fault(&self) -> Option<DeviceFault> {
        self.fault.lock().expect("nobody panics with it").clone()
    }

    /// Waits until everything launched so far is done.
    pub fn synchronize(&self) {
        self.bind();
        // SAFETY: the stream lives as long as `self`.
        let result = unsafe { sys::cuStreamSynchronize(self.stream) };
        self.note("waiting for the device", result);
    }

    pub(crate) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    pub(super) fn modules(&self) -> &Modules {
        &self.modules
    }

    pub(super) fn is_timing(&self) -> bool {
        self.is_timing.load(Ordering::Relaxed)
    }

    pub(super) fn set_timing(&self, is_timing: bool) {
        self.is_timing.store(is_timing, Ordering::Relaxed);
    }

    pub(super) fn marks(&self) -> MutexGuard<'_, Vec<Mark>> {
        self.marks.lock().expect("nobody panics with it")
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Makes this device the calling thread's.
    pub(crate) fn bind(&self) {
        // SAFETY: the context is retained as long as `self` lives.
        let result = unsafe { sys::cuCtxSetCurrent(self.raw) };
        self.note("making the device current", result);
    }

    /// Keeps what went wrong, if it is the first; says whether all is well.
    pub(crate) fn note(&self, what: &str, result: sys::CUresult) -> bool {
        if result == sys::CUresult::CUDA_SUCCESS {
            return true;
        }
        let reason = words(result);
        self.fail(DeviceFault::Failed { what: what.to_owned(), reason });
        false
    }

    pub(crate) fn fail(&self, fault: DeviceFault) {
        self.failed.store(true, Ordering::Relaxed);
        self.fault.lock().expect("nobody panics with it").get_or_insert(fault);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: everything that uses the stream or the context holds this value alive.
        unsafe {
            sys::cuCtxSetCurrent(self.raw);
            sys::cuStreamDestroy_v2(self.stream);
            self.modules.unload();
            sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

/// How many devices the driver knows, and what they are.
///
/// # Errors
/// Why there are none.
pub fn cards() -> Result<Vec<Card>, DeviceFault> {
    initialise()?;
    let mut count = 0;
    // SAFETY: the driver is initialised and writes one integer.
    let result = unsafe { sys::cuDeviceGetCount(&raw mut count) };
    succeeded(result).map_err(|result| DeviceFault::NoDevice(words(result)))?;
    (0..count)
        .map(|ordinal| {
            let mut device = 0;
            // SAFETY: `ordinal` is below the count.
            succeeded(unsafe { sys::cuDeviceGet(&raw mut device, ordinal) })
                .and_then(|()| card(device))
                .map_err(|result| DeviceFault::Unusable(words(result)))
        })
        .collect()
}

fn initialise() -> Result<(), DeviceFault> {
    // SAFETY: opening the driver's library runs its initialisers and nothing else.
    if !unsafe { sys::is_culib_present() } {
        let reason = "the NVIDIA driver's library (libcuda.so.1) cannot be opened";
        return Err(DeviceFault::NoDevice(reason.to_owned()));
    }
    let mut version = 0;
    // SAFETY: the library is there, and this call may come before any other.
    let result = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    succeeded(result).map_err(|result| DeviceFault::NoDevice(words(result)))?;
    if version < DRIVER {
        return Err(DeviceFault::Unusable(format!(
            "the driver speaks CUDA {}.{} and this program needs {}.{}: install driver 580 or \
             newer",
            version / 1000,
            version % 1000 / 10,
            DRIVER / 1000,
            DRIVER % 1000 / 10
        )));
    }
    // SAFETY: as above.
    succeeded(unsafe { sys::cuInit(0) }).map_err(|result| DeviceFault::NoDevice(words(result)))
}

fn card(device: sys::CUdevice) -> Result<Card, sys::CUresult> {
    let attribute = |attribute| {
        let mut value = 0;
        // SAFETY: `device` is one of the driver's and the driver writes one integer.
        succeeded(unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) })
            .map(|()| value as u32)
    };
    let (mut name, mut memory) = ([0; 256], 0);
    // SAFETY: the driver writes at most as many bytes as it is told there are, a zero last.
    let name = unsafe {
        succeeded(sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int - 1, device))?;
        succeeded(sys::cuDeviceTotalMem_v2(&raw mut memory, device))?;
        CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let shared = Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    Ok(Card {
        name,
        generation: 10 * major + minor,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
        shared_bytes: attribute(shared)?,
        memory_bytes: memory as u64,
    })
}

pub(super) fn succeeded(result: sys::CUresult) -> Result<(), sys::CUresult> {
    if result == sys::CUresult::CUDA_SUCCESS { Ok(()) } else { Err(result) }
}

/// A result in the driver's words.
pub(super) fn words(result: sys::CUresult) -> String {
    let mut text = std::ptr::null();
    // SAFETY: the driver hands out a string of its own, or none for a number it does not know.
    unsafe {
        if sys::cuGetErrorString(result, &raw mut text) == sys::CUresult::CUDA_SUCCESS {
            return format!("{} ({result:?})", CStr::from_ptr(text).to_string_lossy());
        }
    }
    format!("{result:?}")
}

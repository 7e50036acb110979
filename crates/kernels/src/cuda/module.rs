//! The kernels, compiled ahead of time and found by their names.

use std::collections::HashMap;
use std::ffi::{CStr, c_int};

use cudarc::driver::sys;
use sys::CUfunction_attribute_enum as Attribute;

use super::card::Card;
use super::context::{succeeded, words};
use crate::fault::DeviceFault;

/// A name and the code for every card generation, of each `*.cu` file.
static MODULES: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/modules.rs"));

/// All kernels of a device.
pub(super) struct Modules {
    modules: Vec<sys::CUmodule>,
    functions: HashMap<String, sys::CUfunction>,
}

impl Modules {
    /// Loads everything into the current context.
    pub(super) fn load(card: &Card) -> Result<Self, DeviceFault> {
        let mut loaded = Self { modules: Vec::new(), functions: HashMap::new() };
        for (name, code) in MODULES {
            loaded.load_one(code, card).map_err(|result| {
                let why = match result {
                    sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => format!(
                        "this program has no code for a {} (compute capability {}.{}); build it \
                         with CUDA_ARCHS={}",
                        card.name,
                        card.generation / 10,
                        card.generation % 10,
                        card.generation
                    ),
                    result => format!("loading the kernels of {name}: {}", words(result)),
                };
                DeviceFault::Unusable(why)
            })?;
        }
        Ok(loaded)
    }

    fn load_one(&mut self, code: &[u8], card: &Card) -> Result<(), sys::CUresult> {
        let mut module = std::ptr::null_mut();
        // SAFETY: `code` is a fat binary, which knows its own size.
        succeeded(unsafe { sys::cuModuleLoadData(&raw mut module, code.as_ptr().cast()) })?;
        self.modules.push(module);
        let mut count = 0;
        // SAFETY: the module was just loaded; the driver fills as many handles as there are.
        let functions = unsafe {
            succeeded(sys::cuModuleGetFunctionCount(&raw mut count, module))?;
            let mut functions = vec![std::ptr::null_mut(); count as usize];
            succeeded(sys::cuModuleEnumerateFunctions(functions.as_mut_ptr(), count, module))?;
            functions
        };
        for function in functions {
            let mut name = std::ptr::null();
            // SAFETY: the handle is the module's; the name lives as long as the module.
            let name = unsafe {
                succeeded(sys::cuFuncGetName(&raw mut name, function))?;
                CStr::from_ptr(name).to_string_lossy().into_owned()
            };
            prepare(function, card)?;
            let twin = self.functions.insert(name.clone(), function);
            assert!(twin.is_none(), "two kernels are named {name}");
        }
        Ok(())
    }

    pub(super) fn function(&self, name: &str) -> sys::CUfunction {
        *self.functions.get(name).unwrap_or_else(|| panic!("no kernel is named {name}"))
    }

    /// Forgets everything.
    ///
    /// # Safety
    /// The context is current and nothing of it runs or will be launched.
    pub(super) unsafe fn unload(&self) {
        for module in &self.modules {
            // SAFETY: as the caller says; a failure at the end of a process helps nobody.
            unsafe { sys::cuModuleUnload(*module) };
        }
    }
}

/// Lets a kernel have all the shared memory that the card allows.
///
/// Every kernel wants the first-level cache split the same way: a multiprocessor has to run empty
/// before it is split anew, and no kernel would start there while another one runs.
fn prepare(function: sys::CUfunction, card: &Card) -> Result<(), sys::CUresult> {
    let mut fixed = 0;
    // SAFETY: the handle is a loaded function's; the driver reads or writes one integer.
    unsafe {
        let own = Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        succeeded(sys::cuFuncGetAttribute(&raw mut fixed, own, function))?;
        let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        succeeded(sys::cuFuncSetAttribute(function, most, card.shared_bytes as c_int - fixed))?;
        let split = Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
        succeeded(sys::cuFuncSetAttribute(function, split, 100))
    }
}

#[cfg(test)]
mod tests {
    use super::MODULES;

    /// A build that compiled nothing would only be noticed on a machine with a card.
    #[test]
    fn every_source_became_code() {
        assert!(MODULES.len() > 1);
        for (name, code) in MODULES {
            // The first word of every fat binary.
            assert_eq!(code[..4], 0xba55_ed50_u32.to_le_bytes(), "{name}");
        }
    }
}

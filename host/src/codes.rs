//! The driver's error codes: their names, what they mean and what to do.
//!
//! The texts are here and not asked from the driver, because some codes mean that there is no
//! driver to ask.

/// What every name of [`MEANINGS`] begins with.
const PREFIX: &str = "CUDA_ERROR_";

/// Code, name without its prefix, meaning; ascending.
const MEANINGS: &[(u32, &str, &str)] = &[
    (1, "INVALID_VALUE", "an argument is outside its range"),
    (2, "OUT_OF_MEMORY", "the GPU has not enough free memory"),
    (3, "NOT_INITIALIZED", "the driver is not initialised in this process"),
    (4, "DEINITIALIZED", "the driver is shutting down"),
    (5, "PROFILER_DISABLED", "the profiler is not active in this process"),
    (6, "PROFILER_NOT_INITIALIZED", "the profiler was not initialised"),
    (7, "PROFILER_ALREADY_STARTED", "the profiler already runs"),
    (8, "PROFILER_ALREADY_STOPPED", "the profiler does not run"),
    (34, "STUB_LIBRARY", "the library is a CUDA toolkit's stub and no driver"),
    (36, "CALL_REQUIRES_NEWER_DRIVER", "the call needs a newer driver"),
    (46, "DEVICE_UNAVAILABLE", "the GPU is taken or switched off"),
    (47, "MULTICAST_RESOURCE_FULL", "no multicast object is free"),
    (100, "NO_DEVICE", "the driver is there, but sees no GPU"),
    (101, "INVALID_DEVICE", "there is no GPU of this ordinal, or it cannot do what was asked"),
    (102, "DEVICE_NOT_LICENSED", "the virtual GPU has no licence"),
    (200, "INVALID_IMAGE", "the kernel's image is not valid"),
    (201, "INVALID_CONTEXT", "no context is current, or it is not valid any more"),
    (202, "CONTEXT_ALREADY_CURRENT", "the context is current already"),
    (205, "MAP_FAILED", "memory could not be mapped"),
    (206, "UNMAP_FAILED", "memory could not be unmapped"),
    (207, "ARRAY_IS_MAPPED", "the array is mapped"),
    (208, "ALREADY_MAPPED", "the resource is mapped already"),
    (209, "NO_BINARY_FOR_GPU", "the image has no code for this GPU"),
    (210, "ALREADY_ACQUIRED", "the resource was acquired already"),
    (211, "NOT_MAPPED", "the resource is not mapped"),
    (212, "NOT_MAPPED_AS_ARRAY", "the resource is not mapped as an array"),
    (213, "NOT_MAPPED_AS_POINTER", "the resource is not mapped as a pointer"),
    (214, "ECC_UNCORRECTABLE", "the GPU's memory has an error that ECC cannot correct"),
    (215, "UNSUPPORTED_LIMIT", "the GPU has no such limit"),
    (216, "CONTEXT_ALREADY_IN_USE", "the context is in use by another thread"),
    (217, "PEER_ACCESS_UNSUPPORTED", "the GPUs cannot read each other's memory"),
    (218, "INVALID_PTX", "the driver's compiler does not take the kernel"),
    (219, "INVALID_GRAPHICS_CONTEXT", "the graphics context is not valid"),
    (220, "NVLINK_UNCORRECTABLE", "NVLink had an error that it cannot correct"),
    (221, "JIT_COMPILER_NOT_FOUND", "the driver's compiler libnvidia-ptxjitcompiler.so is missing"),
    (222, "UNSUPPORTED_PTX_VERSION", "the kernel's PTX is newer than the driver"),
    (223, "JIT_COMPILATION_DISABLED", "the driver's compiler is switched off"),
    (224, "UNSUPPORTED_EXEC_AFFINITY", "the GPU has no such execution affinity"),
    (225, "UNSUPPORTED_DEVSIDE_SYNC", "the code synchronises on the device, which has ended"),
    (226, "CONTAINED", "an error on the GPU was contained; it ended the work of this process"),
    (227, "INSUFFICIENT_LOADER_VERSION", "the image needs a newer loader"),
    (300, "INVALID_SOURCE", "the kernel's source is not valid"),
    (301, "FILE_NOT_FOUND", "a file is missing"),
    (302, "SHARED_OBJECT_SYMBOL_NOT_FOUND", "a shared library lacks a symbol"),
    (303, "SHARED_OBJECT_INIT_FAILED", "a shared library could not be initialised"),
    (304, "OPERATING_SYSTEM", "a call of the operating system failed"),
    (400, "INVALID_HANDLE", "a stream, event or kernel does not exist in this context"),
    (401, "ILLEGAL_STATE", "a resource is not in the state that the call needs"),
    (402, "LOSSY_QUERY", "the answer would leave something out"),
    (500, "NOT_FOUND", "a name is not there"),
    (600, "NOT_READY", "work is still running"),
    (700, "ILLEGAL_ADDRESS", "a kernel read or wrote memory that it may not"),
    (701, "LAUNCH_OUT_OF_RESOURCES", "the launch asks for too many registers or threads"),
    (702, "LAUNCH_TIMEOUT", "a kernel ran longer than the display's watchdog allows"),
    (703, "LAUNCH_INCOMPATIBLE_TEXTURING", "the kernel's texturing does not fit"),
    (704, "PEER_ACCESS_ALREADY_ENABLED", "access to the peer is enabled already"),
    (705, "PEER_ACCESS_NOT_ENABLED", "access to the peer is not enabled"),
    (708, "PRIMARY_CONTEXT_ACTIVE", "the primary context is active already"),
    (709, "CONTEXT_IS_DESTROYED", "the context was reset or destroyed"),
    (710, "ASSERT", "a kernel's assertion failed"),
    (711, "TOO_MANY_PEERS", "no access to a further peer is possible"),
    (712, "HOST_MEMORY_ALREADY_REGISTERED", "the host memory is registered already"),
    (713, "HOST_MEMORY_NOT_REGISTERED", "the host memory is not registered"),
    (714, "HARDWARE_STACK_ERROR", "a kernel broke the GPU's call stack"),
    (715, "ILLEGAL_INSTRUCTION", "a kernel ran an instruction that does not exist"),
    (716, "MISALIGNED_ADDRESS", "a kernel used an address that is not aligned"),
    (717, "INVALID_ADDRESS_SPACE", "a kernel used an address of another memory space"),
    (718, "INVALID_PC", "a kernel jumped to where no code is"),
    (719, "LAUNCH_FAILED", "a kernel failed while it ran"),
    (720, "COOPERATIVE_LAUNCH_TOO_LARGE", "the grid does not fit onto the GPU at once"),
    (721, "TENSOR_MEMORY_LEAK", "a kernel did not give its tensor memory back"),
    (800, "NOT_PERMITTED", "the operation is not permitted"),
    (801, "NOT_SUPPORTED", "this system does not support the operation"),
    (802, "SYSTEM_NOT_READY", "the GPUs are there, but the system is not ready to use them"),
    (803, "SYSTEM_DRIVER_MISMATCH", "the driver's library and its kernel module differ"),
    (804, "COMPAT_NOT_SUPPORTED_ON_DEVICE", "CUDA's compatibility library forbids this GPU"),
    (805, "MPS_CONNECTION_FAILED", "MPS cannot be reached"),
    (806, "MPS_RPC_FAILURE", "MPS did not answer"),
    (807, "MPS_SERVER_NOT_READY", "the server of MPS is not ready"),
    (808, "MPS_MAX_CLIENTS_REACHED", "MPS takes no further process"),
    (809, "MPS_MAX_CONNECTIONS_REACHED", "MPS takes no further connection"),
    (810, "MPS_CLIENT_TERMINATED", "MPS ended the work of this process"),
    (811, "CDP_NOT_SUPPORTED", "kernels cannot launch kernels here"),
    (812, "CDP_VERSION_MISMATCH", "the versions of launches from kernels differ"),
    (900, "STREAM_CAPTURE_UNSUPPORTED", "the call is not allowed while a stream is captured"),
    (901, "STREAM_CAPTURE_INVALIDATED", "an earlier error ended the capture of the stream"),
    (902, "STREAM_CAPTURE_MERGE", "the call would join two captures"),
    (903, "STREAM_CAPTURE_UNMATCHED", "this stream did not begin the capture"),
    (904, "STREAM_CAPTURE_UNJOINED", "a captured stream was not joined to the first"),
    (905, "STREAM_CAPTURE_ISOLATION", "the captured stream depends on work outside the capture"),
    (906, "STREAM_CAPTURE_IMPLICIT", "the legacy default stream waits for a captured stream"),
    (907, "CAPTURED_EVENT", "the event was recorded in a capture"),
    (908, "STREAM_CAPTURE_WRONG_THREAD", "another thread began the capture"),
    (909, "TIMEOUT", "the time for the operation is over"),
    (910, "GRAPH_EXEC_UPDATE_FAILURE", "the graph differs too much for an update"),
    (911, "EXTERNAL_DEVICE", "a device that is no GPU failed"),
    (912, "INVALID_CLUSTER_SIZE", "the cluster's size is not valid"),
    (913, "FUNCTION_NOT_LOADED", "the kernel is not loaded yet"),
    (914, "INVALID_RESOURCE_TYPE", "the type of a resource does not fit"),
    (915, "INVALID_RESOURCE_CONFIGURATION", "the resources do not fit together"),
    (916, "KEY_ROTATION", "the keys of confidential computing are being changed"),
    (917, "STREAM_DETACHED", "the stream is detached from its context"),
    (918, "GRAPH_RECAPTURE_FAILURE", "the graph could not be captured again"),
    (919, "FABRIC_NOT_READY", "the GPU has not joined its NVLink fabric yet"),
    (999, "UNKNOWN", "the driver does not say why"),
];

/// Where a fault of a kernel shows: in the calls after it, whoever launched it.
const EARLIER_KERNEL: &str = "an earlier kernel in this context failed, whoever launched it, and \
     the context cannot be used any more: find the kernel with `compute-sanitizer`, or with \
     CUDA_LAUNCH_BLOCKING=1, and start the process again";

/// What to do about the machine: the driver, its GPUs, its compiler.
fn remedy_of_machine(code: u32) -> Option<&'static str> {
    Some(match code {
        3 => {
            "if this process was forked from one that had used CUDA, start it another way \
             (Python: multiprocessing's \"spawn\") or fork before the first use of CUDA"
        }
        34 => {
            "take the toolkit's `stubs` folder out of LD_LIBRARY_PATH; it is meant for linking \
             only"
        }
        36 | 222 => "update the NVIDIA driver",
        46 => {
            "another process may hold the GPU in exclusive mode (`nvidia-smi -q -d COMPUTE`): end \
             it, or set the compute mode to DEFAULT"
        }
        100 | 101 => {
            "see that `nvidia-smi` lists the GPU, that CUDA_VISIBLE_DEVICES names it, and that a \
             container was started with `--gpus all` and may open /dev/nvidia*"
        }
        102 => "see to the licence of the virtual GPU",
        200 | 209 | 218 => {
            "update the NVIDIA driver; if that does not help, please report it with the output of \
             `fulgurite-check info`"
        }
        214 | 220 => {
            "the GPU needs to be reset or looked at (`nvidia-smi -q -d ECC,PAGE_RETIREMENT`, and \
             Xid messages in the system's log)"
        }
        221 => {
            "install the driver's package that has libnvidia-ptxjitcompiler.so.1 (a container \
             needs NVIDIA_DRIVER_CAPABILITIES=compute,utility and a new start after an update of \
             the driver)"
        }
        223 => "unset CUDA_DISABLE_PTX_JIT: the kernels come as PTX",
        301..=304 => {
            "the driver's installation may be incomplete, or the process at a limit (open files, \
             memory): see the system's log, install the driver again"
        }
        801 => "a MIG slice, a virtual GPU or WSL may lack it: use a whole GPU with its own driver",
        802 => {
            "on machines with NVSwitch (HGX H100, H200) the service nvidia-fabricmanager, of the \
             driver's own version, must run: `systemctl status nvidia-fabricmanager`; after a \
             start of the machine it needs a minute"
        }
        803 => {
            "the driver was updated while it was in use: restart the machine or load its kernel \
             modules again, and create containers anew"
        }
        804 => {
            "take CUDA's `compat` folder out of LD_LIBRARY_PATH and /etc/ld.so.conf.d, or update \
             the NVIDIA driver of the machine"
        }
        805..=810 => "see that MPS runs, with this user and CUDA_MPS_PIPE_DIRECTORY, or stop it",
        919 => "wait until `nvidia-smi -q` shows the fabric's state as completed",
        999 => {
            "look for Xid messages in the system's log (`dmesg | grep -i xid`); after the machine \
             slept, load the module nvidia_uvm again; a MIG slice may have been removed"
        }
        _ => return None,
    })
}

/// What to do about the program: its memory, its contexts and streams, its kernels.
fn remedy_of_program(code: u32) -> Option<&'static str> {
    Some(match code {
        2 => {
            "free memory of the GPU (`nvidia-smi` lists who holds it; frameworks keep freed memory \
             in caches of their own) or use another GPU"
        }
        4 => "do not use the GPU while the process ends: drop plans before `main` returns",
        201 | 400 | 709 => {
            "the context may have been reset (cudaDeviceReset) or destroyed, or the stream belongs \
             to another device: open the device and plan again, and use streams of its context"
        }
        226 | 700 | 702 | 710 | 714..=719 => EARLIER_KERNEL,
        900..=908 => "make plans before the capture begins, and see that nothing else disturbs it",
        _ => return None,
    })
}

/// What to do about a code; `None` where nothing more than its meaning is known.
fn remedy(code: u32) -> Option<&'static str> {
    remedy_of_machine(code).or_else(|| remedy_of_program(code))
}

/// What is done about codes of which nothing more is known.
const REPORT: &str = "please report it with the output of `fulgurite-check info`";

/// The name of a code, and what it means; `None` for codes that this table does not know.
pub(crate) fn describe(code: u32) -> Option<(String, &'static str)> {
    let row = MEANINGS.binary_search_by_key(&code, |row| row.0).ok()?;
    let (_, name, meaning) = MEANINGS[row];
    Some((format!("{PREFIX}{name}"), meaning))
}

/// What to do about a code.
pub(crate) fn advice(code: u32) -> &'static str {
    remedy(code).unwrap_or(REPORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::process::Command;

    /// The folder of the cudarc that this crate is built with.
    fn cudarc() -> PathBuf {
        // Packages of other platforms are not there on a machine that never built for them.
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--offline"])
            .args(["--filter-platform", &platform, "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let manifest = text
            .split("\"manifest_path\":\"")
            .filter_map(|part| part.split('"').next())
            .find(|path| path.contains("/cudarc-") && path.ends_with("/Cargo.toml"))
            .unwrap_or_else(|| panic!("cudarc is not among the packages: {text}"));
        PathBuf::from(manifest).parent().unwrap().to_path_buf()
    }

    /// Names and numbers of every `CUresult` that cudarc knows, of all versions of CUDA.
    fn known() -> Vec<(String, u32)> {
        let source = std::fs::read_to_string(cudarc().join("src/driver/sys/mod.rs")).unwrap();
        let mut known = Vec::new();
        for body in source.split("pub enum cudaError_enum {").skip(1) {
            for line in body.lines().take_while(|line| *line != "}") {
                if let Some((name, code)) = line.trim().trim_end_matches(',').split_once(" = ") {
                    known.push((name.to_owned(), code.parse().unwrap()));
                }
            }
        }
        known
    }

    #[test]
    fn every_code_of_cudarc_has_its_name_and_a_meaning() {
        let known = known();
        assert!(known.len() > 1000, "{} in all versions", known.len());
        for (name, code) in known.iter().filter(|(_, code)| *code != 0) {
            let (got, meaning) = describe(*code).unwrap_or_else(|| panic!("{name} ({code})"));
            assert_eq!((&got, *code), (name, *code));
            assert!(meaning.len() > 10, "{name}: {meaning}");
        }
        assert!(MEANINGS.is_sorted_by(|left, right| left.0 < right.0), "for the binary search");
        assert_eq!(describe(35), None);
    }

    #[test]
    fn what_users_meet_has_a_remedy_of_its_own() {
        for (code, part) in [
            (2, "nvidia-smi"),
            (3, "spawn"),
            (34, "LD_LIBRARY_PATH"),
            (100, "--gpus all"),
            (218, "update the NVIDIA driver"),
            (221, "libnvidia-ptxjitcompiler.so.1"),
            (222, "update the NVIDIA driver"),
            (223, "CUDA_DISABLE_PTX_JIT"),
            (400, "plan again"),
            (700, "compute-sanitizer"),
            (702, "compute-sanitizer"),
            (709, "plan again"),
            (716, "compute-sanitizer"),
            (719, "compute-sanitizer"),
            (801, "MIG"),
            (802, "nvidia-fabricmanager"),
            (803, "restart"),
            (804, "compat"),
            (900, "before the capture"),
            (999, "Xid"),
        ] {
            let text = remedy(code).unwrap_or_else(|| panic!("{code} has none"));
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
        assert_eq!(advice(1), REPORT);
    }
}

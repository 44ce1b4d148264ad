//! Which GPU: lists every adapter wgpu can reach here and chooses one.
//!
//! The choice is never silent: [`choose`] returns why it chose. This file opens no device and
//! runs nothing; see `device.rs` for that.

use wgpu::{AdapterInfo, Backend, Backends, DeviceType, DownlevelFlags};

use crate::error::{Error, Result};
use crate::kernel::Target;

/// What the user asked for; both fields empty means "the best there is".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdapterRequest {
    /// Index in the list `tokenformer devices` prints, or part of a name (case-insensitive).
    /// When absent, the environment variable `WGPU_ADAPTER_NAME` (part of a name) counts.
    pub adapter: Option<String>,
    /// `vulkan`, `metal`, `dx12` or `gl`. Wins over the environment variable `WGPU_BACKEND`.
    pub backend: Option<String>,
}

/// The adapter of the process's number among those of its machine.
pub(crate) const LOCAL_RANK: &str = "local-rank";

/// Where macOS says which one it is.
const SYSTEM_VERSION: &str = "/System/Library/CoreServices/SystemVersion.plist";

/// One adapter of this machine.
#[derive(Debug)]
pub struct FoundAdapter {
    /// Position in the full list, whatever `--backend` says, so that an index keeps its meaning.
    pub index: usize,
    /// Name, driver, backend and type.
    pub info: AdapterInfo,
    /// The handle a device is requested from.
    pub adapter: wgpu::Adapter,
}

impl FoundAdapter {
    /// Whether the adapter runs on the CPU.
    pub(crate) fn is_software(&self) -> bool {
        self.info.device_type == DeviceType::Cpu
    }

    /// Whether shaders may use 16-bit floats.
    pub(crate) fn has_f16(&self) -> bool {
        self.adapter.features().contains(wgpu::Features::SHADER_F16)
    }

    /// Why the adapter cannot run the shaders of models, if it cannot: old OpenGL ES has no compute shaders, Mesa's software
    /// driver of 2020 three storage buffers.
    pub(crate) fn lacks(&self) -> Option<String> {
        let buffers = self.adapter.limits().max_storage_buffers_per_shader_stage;
        if buffers == 0 || !self.adapter.get_downlevel_capabilities().flags.contains(DownlevelFlags::COMPUTE_SHADERS) {
            return Some("it has no compute shaders".to_owned());
        }
        let least = Target::WEBGPU.max_storage_buffers;
        (buffers < least).then(|| format!("it allows {buffers} storage buffers per kernel, and {least} are needed"))
    }

    /// One line for lists inside error messages.
    fn line(&self) -> String {
        let FoundAdapter { index, info, .. } = self;
        format!("{index}: {} ({}, {})", info.name, backend_name(info.backend), type_name(info.device_type))
    }
}

/// Every adapter wgpu finds, of the backends `WGPU_BACKEND` leaves plus the one requested.
///
/// # Errors
/// A backend name that is not known (usage error).
pub fn enumerate(request: &AdapterRequest) -> Result<Vec<FoundAdapter>> {
    Ok(list(backends(request)?))
}

/// The adapter to run on, and why this one ("the only discrete GPU", "matches --adapter 1").
///
/// # Errors
/// No adapter at all, or none that can compute (with what to install), a request nothing matches
/// (with what is there), or a backend name that is not known.
pub fn choose(request: &AdapterRequest) -> Result<(FoundAdapter, String)> {
    let backends = backends(request)?;
    // GL is last in every order, and last in the list: unless it is needed, it is not even loaded.
    match choose_from(list(backends - Backends::GL), request) {
        Ok(chosen) => Ok(chosen),
        Err(_) => choose_from(list(backends), request),
    }
}

/// `request` for one of several processes of this machine, where it leaves the adapter open: those of the kind that would be
/// chosen are dealt out in the order of the list, again from the first where they are fewer than processes.
///
/// # Errors
/// As [`choose`].
pub(crate) fn for_local_rank(request: &AdapterRequest, local_rank: usize) -> Result<AdapterRequest> {
    let open = request.adapter.as_deref().is_none_or(|adapter| adapter == LOCAL_RANK);
    if !open {
        return Ok(request.clone());
    }
    let request = AdapterRequest { adapter: None, ..request.clone() };
    let (best, _) = choose(&request)?;
    let wish = Wish::of(&request)?;
    let candidates = list(backends(&request)?);
    let alike = |(position, candidate): &(usize, &FoundAdapter)| {
        let FoundAdapter { info, .. } = candidate;
        (info.backend, info.device_type) == (best.info.backend, best.info.device_type)
            && candidate.lacks().is_none()
            && wish.matches(*position, &Key::of(candidate))
    };
    let alike: Vec<usize> = candidates.iter().enumerate().filter(alike).map(|(position, _)| position).collect();
    let position = alike.get(local_rank % alike.len().max(1)).copied().unwrap_or(best.index);
    Ok(AdapterRequest { adapter: Some(position.to_string()), ..request })
}

fn list(backends: Backends) -> Vec<FoundAdapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    // A debug build would ask for the Vulkan validation layers, which most machines lack;
    // WGPU_VALIDATION=1 and WGPU_DEBUG=1 still switch them on.
    descriptor.flags = wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL;
    let mut descriptor = descriptor.with_env();
    descriptor.backends = backends;
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(backends));
    let candidate = |(index, adapter): (usize, wgpu::Adapter)| FoundAdapter { index, info: info(&adapter), adapter };
    adapters.into_iter().enumerate().map(candidate).collect()
}

/// What wgpu says of an adapter. It names no driver on Metal, where drivers are part of the system, so the build of the
/// system stands for it: what is noted of an adapter holds for one driver.
fn info(adapter: &wgpu::Adapter) -> AdapterInfo {
    let mut info = adapter.get_info();
    if info.backend == Backend::Metal && info.driver_info.is_empty() {
        let plist = std::fs::read_to_string(SYSTEM_VERSION).unwrap_or_default();
        info.driver_info = system_build(&plist).map_or_else(String::new, |build| format!("macOS build {build}"));
    }
    info
}

/// "23F79" of a [`SYSTEM_VERSION`].
fn system_build(plist: &str) -> Option<&str> {
    let (_, rest) = plist.split_once("<key>ProductBuildVersion</key>")?;
    let (build, _) = rest.split_once("<string>")?.1.split_once("</string>")?;
    Some(build.trim())
}

/// [`choose`] among adapters already listed.
///
/// # Errors
/// Those of [`choose`].
pub(crate) fn choose_from(candidates: Vec<FoundAdapter>, request: &AdapterRequest) -> Result<(FoundAdapter, String)> {
    if candidates.is_empty() {
        return Err(Error::device(nothing_found()));
    }
    let keys: Vec<Key> = candidates.iter().map(Key::of).collect();
    let (position, why) = pick(&keys, &Wish::of(request)?).map_err(|reason| match reason {
        Refusal::NoMatch(asked) => {
            let there: Vec<String> = candidates.iter().map(FoundAdapter::line).collect();
            Error::device(format!("no adapter matches {asked}; this machine has {}", there.join("; ")))
        }
        Refusal::Lacks(name, what) => {
            Error::device(format!("adapter \"{name}\" cannot be used, {what}; {}", install_advice()))
        }
    })?;
    match candidates.into_iter().nth(position) {
        Some(candidate) => Ok((candidate, why)),
        None => Err(Error::device(nothing_found())),
    }
}

/// `Vulkan`, `Metal`, `DX12`, `GL`: backends as people write them.
pub(crate) fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Vulkan => "Vulkan",
        Backend::Metal => "Metal",
        Backend::Dx12 => "DX12",
        Backend::Gl => "GL",
        Backend::BrowserWebGpu => "WebGPU",
        Backend::Noop => "no-op",
    }
}

/// `discrete`, `integrated`, ...: the type of an adapter in a word.
pub(crate) fn type_name(device_type: DeviceType) -> &'static str {
    match device_type {
        DeviceType::DiscreteGpu => "discrete",
        DeviceType::IntegratedGpu => "integrated",
        DeviceType::VirtualGpu => "virtual",
        DeviceType::Cpu => "software",
        DeviceType::Other => "unknown type",
    }
}

/// What [`pick`] needs to know of a candidate: plain data, so that the order of choice can be tested.
#[derive(Debug, Clone)]
struct Key {
    name: String,
    backend: Backend,
    device_type: DeviceType,
    lacks: Option<String>,
}

impl Key {
    fn of(candidate: &FoundAdapter) -> Self {
        Self {
            name: candidate.info.name.clone(),
            backend: candidate.info.backend,
            device_type: candidate.info.device_type,
            lacks: candidate.lacks(),
        }
    }

    /// Lower is better: discrete, integrated, virtual, unknown, software, and OpenGL after all of them.
    /// Between two backends of one GPU, DX12 comes last: its compiler takes longest.
    fn rank(&self) -> (bool, u8, bool) {
        let kind = match self.device_type {
            DeviceType::DiscreteGpu => 0,
            DeviceType::IntegratedGpu => 1,
            DeviceType::VirtualGpu => 2,
            DeviceType::Other => 3,
            DeviceType::Cpu => 4,
        };
        (self.backend == Backend::Gl, kind, self.backend == Backend::Dx12)
    }
}

/// A request with its environment variables resolved, and where each part came from.
#[derive(Debug, Default)]
struct Wish {
    adapter: Option<(String, &'static str)>,
    backend: Option<Backend>,
}

impl Wish {
    fn of(request: &AdapterRequest) -> Result<Self> {
        let from_env = || std::env::var("WGPU_ADAPTER_NAME").ok().filter(|name| !name.is_empty());
        let adapter = match &request.adapter {
            // As part of a name it would match every adapter.
            Some(name) if name.trim().is_empty() => {
                return Err(Error::usage(
                    "--adapter is empty: give a number or part of a name, as `tokenformer devices` lists them, or leave it \
                     out",
                ));
            }
            Some(name) => Some((name.clone(), "--adapter")),
            None => from_env().map(|name| (name, "WGPU_ADAPTER_NAME")),
        };
        Ok(Self { adapter, backend: requested_backend(request)? })
    }

    fn matches(&self, position: usize, key: &Key) -> bool {
        let by_name = |wanted: &str| key.name.to_lowercase().contains(&wanted.to_lowercase());
        let right_adapter = match &self.adapter {
            // Longer numbers are names: "4090".
            Some((wanted, "--adapter")) if wanted.len() <= 2 => match wanted.parse::<usize>() {
                Ok(index) => index == position,
                Err(_) => by_name(wanted),
            },
            Some((wanted, _)) => by_name(wanted),
            None => true,
        };
        right_adapter && self.backend.is_none_or(|backend| backend == key.backend)
    }

    fn describe(&self) -> Option<String> {
        let adapter = self.adapter.as_ref().map(|(wanted, source)| format!("{source} {wanted}"));
        let backend = self.backend.map(|backend| format!("--backend {backend}"));
        match (adapter, backend) {
            (Some(adapter), Some(backend)) => Some(format!("{adapter} {backend}")),
            (adapter, backend) => adapter.or(backend),
        }
    }
}

/// Why nothing could be picked.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// Nothing matches the request, given as the user wrote it.
    NoMatch(String),
    /// The best match, by name, cannot run shaders of models, and why.
    Lacks(String, String),
}

/// The position of the best match and the reason for it.
fn pick(keys: &[Key], wish: &Wish) -> Result<(usize, String), Refusal> {
    let mut matching: Vec<(usize, &Key)> =
        keys.iter().enumerate().filter(|(position, key)| wish.matches(*position, key)).collect();
    // Stable: equals stay in the order of the list.
    matching.sort_by_key(|(_, key)| (key.lacks.is_some(), key.rank()));
    let Some(&(position, best)) = matching.first() else {
        return Err(Refusal::NoMatch(wish.describe().unwrap_or_else(|| "the request".into())));
    };
    if let Some(lacks) = &best.lacks {
        return Err(Refusal::Lacks(best.name.clone(), lacks.clone()));
    }
    let equals = matching.iter().filter(|(_, key)| key.lacks.is_none() && key.rank() == best.rank()).count();
    let kind = match (best.backend, best.device_type) {
        (Backend::Gl, _) => "OpenGL adapter".into(),
        (backend, DeviceType::Cpu) => format!("software {} adapter", backend_name(backend)),
        (_, device_type) => format!("{} GPU", type_name(device_type)),
    };
    let better = if best.rank() > (false, 0, true) { ", and nothing better is here" } else { "" };
    let why = match (wish.describe(), equals) {
        (Some(asked), 1) => format!("matches {asked}"),
        (Some(asked), n) => format!("matches {asked}, the first of {n} {kind}s that do"),
        (None, 1) => format!("the only {kind}{better}"),
        (None, n) => format!("the first of {n} {kind}s{better}"),
    };
    Ok((position, why))
}

/// The backends to look at; indices count over all of them, whatever `--backend` says.
fn backends(request: &AdapterRequest) -> Result<Backends> {
    let from_env = backends_from_env()?.unwrap_or(Backends::all());
    Ok(requested_backend(request)?.map_or(from_env, |requested| from_env | Backends::from(requested)))
}

fn requested_backend(request: &AdapterRequest) -> Result<Option<Backend>> {
    let Some(name) = &request.backend else { return Ok(None) };
    match name.to_lowercase().as_str() {
        "vulkan" | "vk" => Ok(Some(Backend::Vulkan)),
        "metal" | "mtl" => Ok(Some(Backend::Metal)),
        "dx12" | "d3d12" => Ok(Some(Backend::Dx12)),
        "gl" | "gles" | "opengl" => Ok(Some(Backend::Gl)),
        _ => Err(Error::usage(format!("--backend \"{name}\" is not one of vulkan, metal, dx12, gl"))),
    }
}

/// The backends `WGPU_BACKEND` leaves; wgpu itself would take a misspelt name for "none".
fn backends_from_env() -> Result<Option<Backends>> {
    let value = std::env::var("WGPU_BACKEND").unwrap_or_default();
    match Backends::from_env() {
        _ if value.is_empty() => Ok(None),
        Some(backends) if backends.is_empty() => Err(Error::usage(format!(
            "WGPU_BACKEND is \"{value}\", which names no backend; use vulkan, metal, dx12 or gl, separated by commas"
        ))),
        backends => Ok(backends),
    }
}

fn nothing_found() -> String {
    let hint = match std::env::var("WGPU_BACKEND") {
        Ok(value) if !value.is_empty() => format!(" among the backends of WGPU_BACKEND={value}"),
        _ => String::new(),
    };
    format!("no GPU and no software driver was found{hint}; {}", install_advice())
}

/// What to install, by system; the software driver of Mesa is enough to run everything.
fn install_advice() -> &'static str {
    "install a driver and run `tokenformer devices` again:
  Debian, Ubuntu   sudo apt-get install mesa-vulkan-drivers
                   (NVIDIA GPU: nvidia-driver on Debian, `sudo ubuntu-drivers install` on Ubuntu)
  Fedora           sudo dnf install mesa-vulkan-drivers vulkan-loader
  Windows 10, 11   the driver from your GPU's vendor (NVIDIA, AMD, Intel); without a GPU,
                   DirectX 12's own software adapter (WARP) is built in: run Windows Update
  macOS            nothing to install, Metal is built in: macOS 10.15 or newer, on the machine
                   itself (many virtual machines have no Metal)"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, backend: Backend, device_type: DeviceType) -> Key {
        Key { name: name.into(), backend, device_type, lacks: None }
    }

    fn machine() -> Vec<Key> {
        vec![
            key("NVIDIA GeForce RTX 4090", Backend::Gl, DeviceType::DiscreteGpu),
            key("llvmpipe", Backend::Vulkan, DeviceType::Cpu),
            key("Intel UHD", Backend::Vulkan, DeviceType::IntegratedGpu),
            key("NVIDIA GeForce RTX 4090", Backend::Dx12, DeviceType::DiscreteGpu),
            key("NVIDIA GeForce RTX 4090", Backend::Vulkan, DeviceType::DiscreteGpu),
        ]
    }

    fn named(adapter: &str) -> Wish {
        Wish { adapter: Some((adapter.into(), "--adapter")), backend: None }
    }

    #[test]
    fn order_is_discrete_integrated_software_then_gl() {
        let mut keys = machine();
        let mut order = Vec::new();
        while let Ok((position, _)) = pick(&keys, &Wish::default()) {
            order.push(keys.remove(position));
        }
        let order: Vec<_> = order.iter().map(|k| (k.backend, k.device_type)).collect();
        assert_eq!(
            order,
            [
                (Backend::Vulkan, DeviceType::DiscreteGpu),
                (Backend::Dx12, DeviceType::DiscreteGpu),
                (Backend::Vulkan, DeviceType::IntegratedGpu),
                (Backend::Vulkan, DeviceType::Cpu),
                (Backend::Gl, DeviceType::DiscreteGpu),
            ]
        );
    }

    #[test]
    fn an_adapter_without_compute_is_chosen_by_nobody() {
        let mut keys = machine();
        let lacks = "it has no compute shaders".to_owned();
        keys[4].lacks = Some(lacks.clone());
        assert_eq!(pick(&keys, &Wish::default()).unwrap().0, 3);
        assert_eq!(pick(&keys, &named("4")), Err(Refusal::Lacks(keys[4].name.clone(), lacks)));
    }

    #[test]
    fn choosing_without_gl_loaded_keeps_the_indices_of_the_list() {
        let all = enumerate(&AdapterRequest::default()).unwrap();
        for candidate in all.iter().filter(|candidate| candidate.lacks().is_none()) {
            let request = AdapterRequest { adapter: Some(candidate.index.to_string()), backend: None };
            let (chosen, _) = choose(&request).unwrap();
            assert_eq!((chosen.index, &chosen.info), (candidate.index, &candidate.info));
        }
        assert!(choose(&AdapterRequest { adapter: Some("99".into()), backend: None }).is_err());
    }

    #[test]
    fn requests_by_index_name_and_backend() {
        let keys = machine();
        let at = |wish: &Wish| pick(&keys, wish).map(|(position, _)| position);
        assert_eq!(at(&named("1")), Ok(1));
        assert_eq!(at(&named("geforce")), Ok(4));
        assert_eq!(at(&named("4090")), Ok(4), "a long number is part of a name");
        assert_eq!(at(&named("9")), Err(Refusal::NoMatch("--adapter 9".into())), "a short one never is");
        assert_eq!(at(&Wish { backend: Some(Backend::Gl), ..named("nvidia") }), Ok(0));
        assert_eq!(at(&named("radeon")), Err(Refusal::NoMatch("--adapter radeon".into())));
        let error = requested_backend(&AdapterRequest { adapter: None, backend: Some("cuda".into()) });
        assert_eq!(error.unwrap_err().exit_code(), 1);
    }

    #[test]
    fn the_build_of_a_system_is_read() {
        let plist = "<plist version=\"1.0\">\n<dict>\n\t<key>ProductBuildVersion</key>\n\t<string>23F79</string>\n\
                     \t<key>ProductName</key>\n\t<string>macOS</string>\n</dict>\n</plist>\n";
        assert_eq!(system_build(plist), Some("23F79"));
        assert_eq!(system_build(""), None);
        assert_eq!(system_build("<key>ProductBuildVersion</key>"), None);
    }
}

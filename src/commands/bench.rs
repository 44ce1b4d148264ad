//! `tokenformer bench`: how fast this device and the kernels on it are.

use super::settings::ModelSettings;
use crate::bench::compare::compare;
use crate::bench::output::{Format, render};
use crate::bench::record::Report;
use crate::bench::regress::regress;
use crate::bench::{attention, fma, matmul, ops, picture, roofline, step};
use crate::config::Precision;
use crate::error::{Error, Result};
use crate::gpu::adapter::AdapterRequest;
use crate::gpu::device::Gpu;
use crate::gpu::engine::Engine;
use crate::gpu::timing::Stopwatch;
use crate::kernel::{Dtype, KernelTable};
use crate::runtime::device::Device;
use crate::tune::{Effort, Sandbox};
use clap::{Args, Subcommand};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

/// Vocabulary assumed where it depends on data, which is not read.
const BYTE_VOCABULARY: usize = 256;

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What the device can do at most: multiply-adds, bandwidth, dispatches.
    Roofline {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Matrix products by size, layout and kernel.
    Matmul {
        /// Sizes: N or MxNxK, separated by commas.
        #[arg(long, default_value = "256,512,1024")]
        sizes: String,
        /// Layouts: nn (A B), nt (A B^T), tn (A^T B), separated by commas.
        #[arg(long, default_value = "nn,nt,tn")]
        layout: String,
        /// Types of the operands: f32, f16 or both.
        #[arg(long, value_enum, value_delimiter = ',', default_value = "f32")]
        dtype: Vec<Precision>,
        /// Only kernels with this in their name.
        #[arg(long, value_name = "TEXT", default_value = "")]
        candidate: String,
        /// Also the kernels that are rarely the best.
        #[arg(long)]
        all: bool,
        /// Print the WGSL of this kernel in each --layout and --dtype instead of timing; needs no adapter.
        #[arg(long, value_name = "NAME")]
        print: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Causal attention at one shape, each kernel of its forward and backward.
    Attention {
        /// Sequences.
        #[arg(long, default_value_t = 4)]
        batch: usize,
        /// Heads.
        #[arg(long, default_value_t = 12)]
        heads: usize,
        /// Tokens of a sequence.
        #[arg(long, default_value_t = 1024)]
        seq: usize,
        /// Channels of a head.
        #[arg(long, default_value_t = 64)]
        head_width: usize,
        /// Channels of a head that rotate with their position, the first ones; a quarter of them unless given, 0 for none.
        #[arg(long)]
        rotary: Option<usize>,
        /// Types of the activations: f32, f16 or both.
        #[arg(long, value_enum, value_delimiter = ',', default_value = "f32")]
        dtype: Vec<Precision>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Every case of every operator, forward and with backward.
    Ops {
        /// Only cases with this in "operator case", as `selftest` lists them.
        #[arg(long, value_name = "TEXT", default_value = "")]
        filter: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Whole optimizer steps on random tokens, and the time of each kernel in them.
    Step {
        #[command(flatten)]
        settings: ModelSettings,
        /// What is spent on choosing kernels before.
        #[arg(long, value_enum, default_value_t)]
        tune: Effort,
        /// Steps that are timed, after two that are not.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        steps: u32,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Two reports of `--out` against each other.
    Compare {
        /// The report that is 1.
        a: PathBuf,
        /// The report that is compared with it.
        b: PathBuf,
        /// Form of the results on standard output.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// How long to measure, and what becomes of the results.
#[derive(Debug, Args)]
struct OutputArgs {
    /// Seconds for each case; one run and its warm-up may take longer.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Form of the results on standard output.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Also write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Also draw the roofline into this file, as SVG (measures what --peaks does).
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Also measure the multiply-add peak and bandwidth; `matmul` is timed in turn with the peak.
    #[arg(long)]
    peaks: bool,
    /// Fail where a case is more than this much slower than in --baseline (a kernel of `bench step`: and costs the step 0.05 %).
    #[arg(long, value_name = "PERCENT", requires = "baseline", value_parser = percent)]
    regress: Option<f64>,
    /// A report of --out; where it holds the multiply-add peak, times count relative to the peak of each run.
    #[arg(long, value_name = "FILE", requires = "regress")]
    baseline: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let found = Some(super::number(text)?).filter(|seconds| (0.001..=3600.0).contains(seconds));
    found.ok_or_else(|| "give a number from 0.001 to 3600".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    let found = Some(super::number(text.trim_end_matches('%'))?).filter(|percent| (0.0..=1e6).contains(percent));
    found.ok_or_else(|| "give a number from 0 to 1000000".to_owned())
}

/// Measures and prints.
///
/// # Errors
/// Wrong arguments; files that cannot be read or written; a device error where a result is wrong or, with `--regress`,
/// slower than before.
pub(crate) fn run(request: &AdapterRequest, args: &BenchArgs) -> Result<()> {
    match &args.what {
        What::Roofline { output } => {
            let cases = |stopwatch: &Stopwatch, _: &KernelTable, report: &mut Report| {
                roofline::run(stopwatch, output.seconds, report)
            };
            measure(output, || open(request), cases)
        }
        What::Matmul { print: Some(name), layout, dtype, .. } => {
            let layouts = matmul::parse_layouts(layout)?;
            let texts = dtype.iter().flat_map(|&dtype| layouts.iter().map(move |&layout| (layout, element(dtype))));
            let texts = texts.map(|(layout, dtype)| matmul::text(name, layout, dtype)).collect::<Result<Vec<_>>>()?;
            super::print(&texts.join("\n"))
        }
        What::Attention { batch, heads, seq, head_width, rotary, dtype, output } => {
            let chosen = attention::Chosen {
                shape: [*batch, *heads, *seq, *head_width],
                rotary: rotary.unwrap_or(head_width / 8 * 2),
                dtypes: dtype.iter().map(|&dtype| element(dtype)).collect(),
            };
            measure(
                output,
                || open(request),
                |stopwatch, kernels, report| attention::run(stopwatch, kernels, &chosen, output.seconds, report),
            )
        }
        What::Matmul { sizes, layout, dtype, candidate, all, print: None, output } => {
            let chosen = matmul::Chosen {
                sizes: matmul::parse_sizes(sizes)?,
                layouts: matmul::parse_layouts(layout)?,
                halves: dtype.iter().map(|dtype| *dtype == Precision::F16).collect(),
                filter: candidate.clone(),
                all: *all,
                peaks: output.peaks,
            };
            measure(
                output,
                || open(request),
                |stopwatch, _, report| matmul::run(stopwatch, &chosen, output.seconds, report),
            )
        }
        What::Ops { filter, output } => measure(
            output,
            || open(request),
            |stopwatch, kernels, report| ops::run(stopwatch, kernels, filter, output.seconds, report),
        ),
        What::Step { settings, tune, steps, output } => {
            let mut config = settings.resolve()?;
            if config.model.vocab_size == 0 {
                config.model.resolve_vocab(BYTE_VOCABULARY)?;
            }
            config.validate()?;
            // Here no reference checks the results themselves, so the adapter must have passed its self-test.
            measure(
                output,
                || super::open_device(request),
                |stopwatch, kernels, report| {
                    let another = || Engine::new(Gpu::open(request)?);
                    let process = || super::probe::command(request);
                    let sandbox = Sandbox { open: &another, process: Some(&process) };
                    let chosen = step::Chosen {
                        config: &config,
                        effort: *tune,
                        steps: *steps as usize,
                        seconds: output.seconds,
                    };
                    step::run(stopwatch, kernels, &sandbox, &chosen, report)
                },
            )
        }
        What::Compare { a, b, format } => super::print(&compare(&Report::read(a)?, &Report::read(b)?).render(*format)?),
    }
}

/// How elements of a precision are stored.
fn element(precision: Precision) -> Dtype {
    if precision == Precision::F16 { Dtype::F16 } else { Dtype::F32 }
}

fn open(request: &AdapterRequest) -> Result<Device> {
    let device = Device::open(request)?;
    let gpu = &device.engine.gpu;
    super::tell_adapter(gpu);
    Ok(device)
}

fn measure(
    output: &OutputArgs,
    open: impl FnOnce() -> Result<Device>,
    cases: impl FnOnce(&Stopwatch, &KernelTable, &mut Report) -> Result<()>,
) -> Result<()> {
    // All that can be wrong about files is found before the measuring.
    let baseline = output.baseline.as_deref().map(Report::read).transpose()?;
    [&output.out, &output.svg].into_iter().flatten().try_for_each(|path| check_writable(path))?;
    let Device { engine, kernels, .. } = open()?;
    let mut report = Report { path: output.out.clone(), ..Report::new(&engine.gpu) };
    if !engine.checked() {
        report.summary.push("Kernels ran without wgpu's checks; TOKENFORMER_CHECKS=on brings them back.".to_owned());
    }
    let stopwatch = Stopwatch::new(&engine)?;
    cases(&stopwatch, &kernels, &mut report)?;
    if output.peaks || output.svg.is_some() {
        roofline::ceilings(&stopwatch, output.seconds, &mut report)?;
    }
    if baseline.as_ref().is_some_and(|baseline| baseline.fma_peak("f32").is_some()) && report.fma_peak("f32").is_none()
    {
        report.add(fma::fma_peak(&stopwatch, Dtype::F32, output.seconds)?);
    }
    // First, so that a disk that is full by now does not take the results along.
    super::print(&render(&report, output.format)?)?;
    if let Some(path) = &output.out {
        report.write(path)?;
    }
    if let Some(path) = &output.svg {
        std::fs::write(path, picture::roofline(&report)).map_err(|cause| Error::io("write", path, &cause))?;
    }
    match (output.regress, &baseline) {
        (Some(percent), Some(baseline)) => regress(&report, baseline, percent),
        _ => Ok(()),
    }
}

/// Whether a file can be written, or made; what is in it stays, and none is left behind.
fn check_writable(path: &Path) -> Result<()> {
    let known = path.symlink_metadata().is_ok();
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|cause| {
        let refused = Error::io("write", path, &cause);
        Error::input(format!("{refused}; give a file in a folder that exists and can be written"))
    })?;
    if !known {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

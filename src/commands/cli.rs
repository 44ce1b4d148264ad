//! Command-line arguments, and which verb they call. What a verb does is in `commands/`.

use crate::commands;
use crate::console::{self, Color, Level};
use crate::error::Result;
use crate::gpu::adapter::AdapterRequest;
use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;

/// Train and grow TokenFormer language models on any Vulkan, Metal or DX12 GPU.
#[derive(Debug, Parser)]
#[command(name = "tokenformer", version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    console: ConsoleArgs,
    #[command(subcommand)]
    command: Command,
}

/// Which adapter to use; by default the best one there is.
#[derive(Debug, Args)]
struct AdapterArgs {
    /// Adapter by number or part of its name, as `devices` lists them.
    #[arg(long, global = true, value_name = "INDEX|NAME")]
    adapter: Option<String>,
    /// Graphics API: vulkan, metal, dx12 or gl.
    #[arg(long, global = true)]
    backend: Option<String>,
}

/// What is told on standard error.
#[derive(Debug, Args)]
struct ConsoleArgs {
    /// Tell errors, warnings and results only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Tell also why.
    #[arg(short, long, global = true)]
    verbose: bool,
    /// When to use colours.
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

impl ConsoleArgs {
    fn level(&self) -> Level {
        match (self.quiet, self.verbose) {
            (true, _) => Level::Quiet,
            (_, true) => Level::Verbose,
            _ => Level::Usual,
        }
    }

    fn color(&self) -> Color {
        match self.color {
            ColorChoice::Auto => Color::Auto,
            ColorChoice::Always => Color::Always,
            ColorChoice::Never => Color::Never,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model; without arguments, the built-in default.
    Train(commands::train::TrainArgs),
    /// Make the model of a checkpoint larger, in a new file.
    Grow(commands::grow::GrowArgs),
    /// Make the model of a checkpoint smaller, in a new file, or say what that would cost.
    Prune(commands::prune::PruneArgs),
    /// Generate text from a checkpoint.
    Generate(commands::generate::GenerateArgs),
    /// Loss, perplexity and bits per byte of a checkpoint.
    Eval(commands::eval::EvalArgs),
    /// Show a checkpoint's configuration, parameters and growth history.
    Inspect(commands::inspect::InspectArgs),
    /// Device memory a run needs, by class, before anything is allocated.
    Plan(commands::plan::PlanArgs),
    /// Check every operator against its reference on this machine's adapter.
    Selftest(commands::selftest::SelftestArgs),
    /// Time the device, matrix products, operators and training steps.
    Bench(commands::bench::BenchArgs),
    /// Compare ways to train and grow over several seeds, at equal tokens and equal FLOPs.
    Study(commands::study::StudyArgs),
    /// The report of a study, of runs that were made on their own.
    Compare(commands::compare::CompareArgs),
    /// List the adapters, their limits, and which would be chosen.
    Devices(commands::devices::DevicesArgs),
    /// Try kernels for another process of this program.
    #[command(hide = true)]
    ProbeKernels,
}

/// Parses the process arguments. On failure (or `--help`) the message is printed and the exit code returned.
pub fn parse() -> std::result::Result<Cli, u8> {
    let command = with_negative_numbers(Cli::command()).color(asked_color(std::env::args_os()));
    let matches = command.try_get_matches();
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| {
        // A closed pipe is the only way this fails, and there is nobody left to tell.
        let _ = error.print();
        u8::from(error.use_stderr())
    })
}

/// `--color`, for what is said of arguments that cannot be parsed, and for help.
fn asked_color(args: impl Iterator<Item = OsString>) -> ColorChoice {
    let args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let separate = args.windows(2).find_map(|pair| (pair[0] == "--color").then(|| pair[1].as_str()));
    let joined = || args.iter().find_map(|arg| arg.strip_prefix("--color="));
    separate.or_else(joined).and_then(|when| when.parse().ok()).unwrap_or_default()
}

/// -1 is a value and not an option, so that what refuses it can name the option and its limit.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let valued = |arg: clap::Arg| if arg.get_action().takes_values() { arg.allow_negative_numbers(true) } else { arg };
    command.mut_args(valued).mut_subcommands(with_negative_numbers)
}

impl Cli {
    /// Runs the verb.
    ///
    /// # Errors
    /// Whatever the verb reports.
    pub fn run(self) -> Result<()> {
        console::set(self.console.level(), self.console.color());
        let request = AdapterRequest { adapter: self.adapter.adapter, backend: self.adapter.backend };
        match self.command {
            Command::Train(args) => commands::train::run(&request, &args),
            Command::Grow(args) => commands::grow::run(&request, &args),
            Command::Prune(args) => commands::prune::run(&request, &args),
            Command::Generate(args) => commands::generate::run(&request, &args),
            Command::Eval(args) => commands::eval::run(&request, &args),
            Command::Inspect(args) => commands::inspect::run(&args),
            Command::Plan(args) => commands::plan::run(&request, &args),
            Command::Selftest(args) => commands::selftest::run(&request, &args),
            Command::Bench(args) => commands::bench::run(&request, &args),
            Command::Study(args) => commands::study::run(&request, &args),
            Command::Compare(args) => commands::compare::run(&args),
            Command::Devices(args) => commands::devices::run(&request, &args),
            Command::ProbeKernels => commands::probe::run(&request),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        with_negative_numbers(Cli::command()).debug_assert();
    }
}

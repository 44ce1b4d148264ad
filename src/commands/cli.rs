//! Command-line arguments, and which verb they call. What a verb does is in `commands/`.

use super::wording::{WITHOUT_ADAPTER, worded};
use super::{answer, examples};
use crate::commands;
use crate::config::flag_of;
use crate::console::{self, Color, Level, tell};
use crate::error::Result;
use crate::gpu::adapter::AdapterRequest;
use crate::runtime::distributed::World;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::Value;
use std::ffi::OsString;

/// What the program was asked for.
#[derive(Debug)]
pub struct Cli {
    request: AdapterRequest,
    console: ConsoleArgs,
    /// The name of the verb.
    verb: String,
    /// Whether the answer is wanted as JSON.
    json: bool,
    command: Command,
}

/// Train and grow TokenFormer language models on any Vulkan, Metal or DX12 GPU.
#[derive(Debug, Parser)]
#[command(name = "tokenformer", version, about, arg_required_else_help = true)]
struct Parsed {
    #[command(flatten)]
    console: ConsoleArgs,
    #[command(subcommand)]
    command: Command,
}

// Which adapter to use. No documentation: it would take the place of what a verb says of itself.
#[derive(Debug, Default, Args)]
struct AdapterArgs {
    /// Adapter by number or part of its name, as `devices` lists them; for several ranks `local-rank`, one adapter each.
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
    /// Make token shards out of text files, to train on.
    Prepare(commands::prepare::PrepareArgs),
    /// Make the model of a checkpoint larger, in a new file.
    Grow(commands::grow::GrowArgs),
    /// Make the model of a checkpoint smaller, in a new file, or say what that would cost.
    Prune(commands::prune::PruneArgs),
    /// Write the model of a checkpoint for transformers, llama.cpp or other programs.
    Export(commands::export::ExportArgs),
    /// Make a checkpoint of a model of another program, to train, grow or use.
    Import(commands::import::ImportArgs),
    /// Generate text from a checkpoint.
    #[command(visible_alias = "sample")]
    Generate(commands::generate::GenerateArgs),
    /// Loss, perplexity and bits per byte of a checkpoint.
    Eval(commands::eval::EvalArgs),
    /// Show a checkpoint's configuration, parameters and growth history.
    Inspect(commands::inspect::InspectArgs),
    /// Device memory a run needs, by class, before anything is allocated.
    Plan(commands::plan::PlanArgs),
    /// Suggest a learning rate: a short test of many, and its picture.
    LrFind(commands::lr_find::LrFindArgs),
    /// Check every operator against its reference on this machine's adapter.
    Selftest(commands::selftest::SelftestArgs),
    /// Time the device, matrix products, operators and training steps.
    Bench(commands::bench::BenchArgs),
    /// Compare ways to train and grow over several seeds, at equal tokens and equal FLOPs.
    Study(commands::study::StudyArgs),
    /// The report of a study, of runs that were made on their own.
    Compare(commands::compare::CompareArgs),
    /// One page with the curves of a run, or of several over each other.
    Report(commands::report::ReportArgs),
    /// List the adapters, their limits, and which would be chosen.
    Devices(commands::devices::DevicesArgs),
    /// List the presets, their size, and what each is for; or print the settings of one.
    Presets {
        /// Print the settings of this one, as a file for --config.
        name: Option<String>,
    },
    /// Print completions for a shell.
    Completions(commands::manual::CompletionsArgs),
    /// Write manual pages.
    Man(commands::manual::ManArgs),
    /// Try kernels for another process of this program.
    #[command(hide = true)]
    ProbeKernels,
}

/// Every argument of every verb.
fn command() -> clap::Command {
    let with_adapter = |verb: clap::Command| match WITHOUT_ADAPTER.contains(&verb.get_name()) {
        true => verb,
        false => AdapterArgs::augment_args(verb),
    };
    let whole = Parsed::command().mut_subcommands(|verb| examples::shown(with_adapter(verb)));
    // Before the verb as well, but not as a part of every verb.
    let before = AdapterArgs::augment_args(clap::Command::new("")).mut_args(|arg| arg.global(false));
    let before: Vec<clap::Arg> = before.get_arguments().cloned().collect();
    worded(whole.args(before)).after_help("`tokenformer VERB --help` has examples of each.")
}

/// How alike two flags are at least of which one is a slip of the other.
const NEAR: f64 = 0.75;

/// Parses the process arguments. On failure (or `--help`) the message is printed and the exit code returned.
pub fn parse() -> std::result::Result<Cli, u8> {
    let command = command().color(asked_color(std::env::args_os()));
    let parsed = command.try_get_matches().and_then(|matches| of_matches(&matches));
    parsed.map_err(|mut error| {
        keep_near_tips(&mut error);
        let failed = error.use_stderr();
        if let Some(sentence) = known_elsewhere(&error) {
            tell(format_args!("error: {sentence}"));
        } else {
            // A closed pipe is the only way this fails, and there is nobody left to tell.
            let _ = error.print();
        }
        if failed && std::env::args_os().any(|arg| arg == "--json") {
            let text = error.to_string();
            // What is missing is a list under the first line.
            let told: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
            let told = told.join(" ").trim_start_matches("error: ").to_owned();
            answer::print_failure(&known_elsewhere(&error).unwrap_or(told), "usage", 1);
        }
        u8::from(failed)
    })
}

/// Flags of other programs are like some flag of this one, which is a tip only where it may have been meant: and to pass a flag
/// as a value is never meant.
fn keep_near_tips(error: &mut clap::Error) {
    let ContextValue::String(given) = error.get(ContextKind::InvalidArg).cloned().unwrap_or(ContextValue::None) else {
        return;
    };
    if let Some(ContextValue::String(tip)) = error.get(ContextKind::SuggestedArg)
        && strsim::normalized_damerau_levenshtein(&given, tip) < NEAR
    {
        error.remove(ContextKind::SuggestedArg);
    }
    error.remove(ContextKind::Suggested);
}

fn of_matches(matches: &ArgMatches) -> std::result::Result<Cli, clap::Error> {
    let before = AdapterArgs::from_arg_matches(matches)?;
    let (verb, own) = matches.subcommand().map_or(("", None), |(verb, own)| (verb, Some(own)));
    let given = match own {
        Some(own) if !WITHOUT_ADAPTER.contains(&verb) => AdapterArgs::from_arg_matches(own)?,
        _ if before.adapter.is_some() || before.backend.is_some() => {
            let sentence = format!("{verb} uses no adapter: leave --adapter and --backend out");
            return Err(command().error(ErrorKind::ArgumentConflict, sentence));
        }
        _ => AdapterArgs::default(),
    };
    let json = own.is_some_and(|own| own.try_get_one::<bool>("json").ok().flatten().is_some_and(|json| *json));
    let request =
        AdapterRequest { adapter: given.adapter.or(before.adapter), backend: given.backend.or(before.backend) };
    let Parsed { console, command } = Parsed::from_arg_matches(matches)?;
    Ok(Cli { request, console, json, verb: verb.to_owned(), command })
}

/// What is said where a setting, or what another program calls one, was given as a flag of a run.
fn known_elsewhere(error: &clap::Error) -> Option<String> {
    let verb = |verbs: &[&str]| std::env::args_os().any(|arg| verbs.iter().any(|verb| arg == *verb));
    let of_run = verb(&["train", "plan", "lr-find"]);
    let unknown = (error.kind() == ErrorKind::UnknownArgument).then(|| error.get(ContextKind::InvalidArg))?;
    match unknown {
        Some(ContextValue::String(flag)) if ["--adapter", "--backend"].contains(&flag.as_str()) => {
            Some(format!("this command uses no adapter: leave {flag} out"))
        }
        Some(ContextValue::String(flag)) if flag.starts_with("--") => {
            let flag = flag.split('=').next().unwrap_or(flag);
            let remedy = match flag.replace('_', "-").as_str() {
                "--out-dir" | "--ckpt" | "--ckpt-path" | "--checkpoint" | "--model" | "--init-from" if !of_run => {
                    Some("the run or checkpoint is given without a flag, as in `generate RUN`".to_owned())
                }
                "--init-from" => Some("a run goes on with --resume RUN".to_owned()),
                "--eval-only" => Some("`tokenformer eval RUN` measures a run".to_owned()),
                _ if of_run => flag_of(flag),
                _ => None,
            };
            remedy.map(|remedy| format!("there is no flag {flag}: {remedy}"))
        }
        _ => None,
    }
}

/// `--color`, for what is said of arguments that cannot be parsed, and for help.
fn asked_color(args: impl Iterator<Item = OsString>) -> ColorChoice {
    let args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let separate = args.windows(2).find_map(|pair| (pair[0] == "--color").then(|| pair[1].as_str()));
    let joined = || args.iter().find_map(|arg| arg.strip_prefix("--color="));
    separate.or_else(joined).and_then(|when| when.parse().ok()).unwrap_or_default()
}

impl Cli {
    /// Runs the verb.
    ///
    /// # Errors
    /// Whatever the verb reports.
    pub fn run(self) -> Result<()> {
        console::set(self.console.level(), self.console.color());
        super::interrupt::write_past_limits_fails();
        super::environment::warn_of_unknown(std::env::vars_os().map(|(name, _)| name));
        let (json, verb) = (self.json, self.verb.clone());
        let world = match &self.command {
            Command::Train(_) | Command::Study(_) => World::from_environment()?,
            _ => World::alone(),
        };
        // Rank 0 tells what all would.
        console::silence(!world.is_root());
        let found = self.found(&world);
        let told = found.as_ref().map(drop).map_err(ToString::to_string);
        world.leave(told.as_ref().map(drop).map_err(String::as_str));
        console::silence(!world.is_root() && world.said_its_end(0));
        match found {
            Ok(_) if !world.is_root() => Ok(()),
            Ok(found) if json => answer::print(&verb, found),
            Err(error) => {
                if json && world.is_root() {
                    answer::print_failure(&error.to_string(), answer::kind(&error), error.exit_code());
                }
                Err(error)
            }
            Ok(_) => Ok(()),
        }
    }

    /// What the verb found; null where it answers in words only.
    fn found(self, world: &World) -> Result<Value> {
        let request = self.request;
        let words = match self.command {
            Command::Train(args) => return commands::train::run(world, &request, &args),
            Command::Prepare(args) => return commands::prepare::run(&args),
            Command::Grow(args) => return commands::grow::run(&request, &args),
            Command::Prune(args) => return commands::prune::run(&request, &args),
            Command::Export(args) => return commands::export::run(&args),
            Command::Import(args) => return commands::import::run(&args),
            Command::Generate(args) => return commands::generate::run(&request, &args),
            Command::Eval(args) => return commands::eval::run(&request, &args),
            Command::Inspect(args) => return commands::inspect::run(&args),
            Command::Plan(args) => return commands::plan::run(&request, &args),
            Command::LrFind(args) => return commands::lr_find::run(&request, &args),
            Command::Selftest(args) => return commands::selftest::run(&request, &args),
            Command::Devices(args) => return commands::devices::run(&request, &args),
            Command::Report(args) => return commands::report::run(&args),
            Command::Bench(args) => commands::bench::run(&request, &args),
            Command::Study(args) => commands::study::run(world, &request, &args),
            Command::Compare(args) => commands::compare::run(&args),
            Command::Presets { name } => commands::presets::run(name.as_deref()),
            Command::Completions(args) => commands::manual::completions(command(), &args),
            Command::Man(args) => commands::manual::pages(command(), &args),
            Command::ProbeKernels => commands::probe::run(&request),
        };
        words.map(|()| Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_verb_has_three_examples_that_are_understood() {
        let verbs: Vec<String> = command().get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
        for verb in verbs.iter().filter(|verb| *verb != "probe-kernels") {
            assert_eq!(examples::all().filter(|(of, _)| of == verb).count(), 3, "{verb}");
        }
        for (_, line) in examples::all() {
            let line = line.split(" > ").next().unwrap().replace('"', "");
            let words = line.split(' ').map(str::to_owned);
            let matches = command().try_get_matches_from(["tokenformer".to_owned()].into_iter().chain(words));
            of_matches(&matches.unwrap()).unwrap();
        }
    }

    #[test]
    fn names_of_other_programs_are_understood() {
        for line in [
            "train --max_iters=5 --batch_size=3 --learning_rate=1e-3 --out_dir=r --dtype f16",
            "train --max-steps 5 --per_device_train_batch_size 3 --output_dir r --gradient_checkpointing",
            "train in.txt -n 5 -c x.toml -o out -s train.grad_clip=1",
            "train -d in.txt -p quickstart --arch transformer",
            "sample r --max_new_tokens=5 --start=a --top_k=3 --num_samples=2 --temp 1",
            "--adapter 0 bench step",
            "bench step --adapter 0",
            "devices --backend gl",
        ] {
            let words = ["tokenformer"].into_iter().chain(line.split(' '));
            let cli = of_matches(&command().try_get_matches_from(words).unwrap()).unwrap();
            assert_eq!(cli.request.adapter.is_some(), line.contains("--adapter"), "{line}");
        }
        for line in
            ["--adapter 0 inspect r", "inspect r --adapter 0", "compare a b --backend gl", "train a.txt -d b.txt"]
        {
            let words = ["tokenformer"].into_iter().chain(line.split(' '));
            assert!(command().try_get_matches_from(words).and_then(|matches| of_matches(&matches)).is_err(), "{line}");
        }
    }
}

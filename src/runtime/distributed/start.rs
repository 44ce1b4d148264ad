//! Whether a launcher started this process as one of several. MPI is not asked: to start it takes a second, and most runs are
//! alone.

use super::World;
use crate::error::{Error, Result};

/// What a launcher says to each process.
#[derive(Debug, PartialEq, Eq)]
struct Launch {
    /// How many processes there are.
    size: usize,
    /// What it is called.
    by: &'static str,
}

impl World {
    /// The ranks that this process is one of, or it alone.
    ///
    /// Must be called once, by the main thread, and by no process that another one of this program started: such a one has
    /// its parent's environment, and would be taken for it.
    pub(crate) fn from_environment() -> Result<Self> {
        match Launch::read(|name| std::env::var(name).ok()) {
            Some(launch) if launch.size > 1 => connect(&launch),
            _ => Ok(Self::alone()),
        }
    }
}

impl Launch {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
        let of = |by, size: Option<usize>| size.map(|size| Self { size, by });
        // Open MPI; then MPICH, Intel MPI, MS-MPI, Cray and `srun --mpi=pmi2`; then MVAPICH's own launcher.
        of("mpirun", number("OMPI_COMM_WORLD_SIZE"))
            .or_else(|| of("mpiexec", number("PMI_SIZE")))
            .or_else(|| of("mpirun", number("MV2_COMM_WORLD_SIZE")))
            .or_else(|| {
                // Slurm sets its own in every job script too, where nothing is to be connected. A process that `srun` started
                // with an MPI plugin has the plugin's beside them.
                let plugin = ["PMIX_RANK", "PMI_RANK", "PMI_FD", "PMI_CONTROL_PORT"];
                let is_task = variable("SLURM_PROCID").is_some() && plugin.iter().any(|name| variable(name).is_some());
                let size = number("SLURM_STEP_NUM_TASKS").or_else(|| number("SLURM_NTASKS"));
                of("srun", size.filter(|_| is_task))
            })
    }
}

#[cfg(not(feature = "mpi"))]
fn connect(launch: &Launch) -> Result<World> {
    Err(Error::usage(format!(
        "this process is one of {} that {} started, but this tokenformer was built without MPI: build it with `cargo install --path . --features mpi`, or start it alone",
        launch.size, launch.by
    )))
}

#[cfg(feature = "mpi")]
fn connect(launch: &Launch) -> Result<World> {
    use super::transport::Transport;
    let mpi = super::mpi::Mpi::start()?;
    // A launcher of another MPI: each process would train alone, and all would write the same files.
    if mpi.size() != launch.size {
        let found = mpi.size();
        mpi.end(found == 1);
        return Err(Error::usage(format!(
            "{} started {} processes, but the MPI that this tokenformer was built with ({}) sees {found}: start it with the launcher of that MPI",
            launch.by,
            launch.size,
            super::mpi::library()
        )));
    }
    let identity = format!("{}, process {}", super::mpi::host(), std::process::id());
    World::over(mpi, identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Option<(usize, &'static str)> {
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Launch::read(value).map(|launch| (launch.size, launch.by))
    }

    #[test]
    fn launchers_are_told_from_their_variables() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("OMPI_COMM_WORLD_SIZE", "4"), ("PMIX_RANK", "1")]), Some((4, "mpirun")));
        assert_eq!(read(&[("PMI_SIZE", "3"), ("PMI_RANK", "0")]), Some((3, "mpiexec")));
        assert_eq!(read(&[("OMPI_COMM_WORLD_SIZE", "many")]), None);
        let job = [("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0"), ("SLURM_JOB_ID", "1")];
        assert_eq!(read(&job), None);
        let step = [("SLURM_NTASKS", "8"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", "1"), ("PMIX_RANK", "1")];
        assert_eq!(read(&step), Some((2, "srun")));
        assert_eq!(read(&step[..1]), None);
    }
}

//! `completions` and `man`: what shells and `man` know of the command line, made from the arguments themselves.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args as ClapArgs, Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::args::Args;

#[derive(Debug, ClapArgs)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: ShellArg,
}

/// A shell.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ShellArg {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The name of the program.
const NAME: &str = "shardlake";

pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let shell = match args.shell {
        ShellArg::Bash => Shell::Bash,
        ShellArg::Elvish => Shell::Elvish,
        ShellArg::Fish => Shell::Fish,
        ShellArg::Powershell => Shell::PowerShell,
        ShellArg::Zsh => Shell::Zsh,
    };
    // A pipe that is closed early must not be a panic.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), NAME, &mut text);
    io::stdout().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the page of the program, or writes one page for each command.
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let mut command = Args::command();
    command.build();
    match &args.out {
        None => Man::new(command).render(&mut io::stdout())?,
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            write_pages(&command, NAME, folder)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_pages(command: &Command, name: &str, folder: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    // The page of a subcommand has its whole name, as git's have.
    // The title of a page is a name that lives as long as the program.
    Man::new(command.clone().display_name(name.to_owned())).title(name.to_owned()).render(&mut page)?;
    std::fs::write(folder.join(format!("{name}.1")), page)?;
    for part in command.get_subcommands().filter(|part| part.get_name() != "help") {
        write_pages(part, &format!("{name}-{}", part.get_name()), folder)?;
    }
    Ok(())
}

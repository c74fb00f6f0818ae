//! `schema`: prints the schema of a dataset, as a catalogue wants it.

use std::process::ExitCode;

use pipeline::dataset::SchemaFormat;

use crate::cli::args::{SchemaArgs, SchemaFormatArg};
use crate::cli::{Usage, load};

pub(crate) fn schema(args: &SchemaArgs) -> anyhow::Result<ExitCode> {
    let config = load(&args.lake.overrides())?;
    let Some(dataset) = config.datasets.find(&args.dataset) else {
        let known: Vec<&str> = config.datasets.names().collect();
        return Err(Usage(format!("there is no dataset '{}'; known: {}", args.dataset, known.join(", "))).into());
    };
    let format = match args.format {
        SchemaFormatArg::Athena => SchemaFormat::Athena,
        SchemaFormatArg::Glue => SchemaFormat::Glue,
        SchemaFormatArg::JsonSchema => SchemaFormat::JsonSchema,
        SchemaFormatArg::Arrow => SchemaFormat::Arrow,
    };
    // A catalogue needs a location that it can reach. A URL is given as it was typed.
    let lake = match &args.lake.lake {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => config.lake.backend().catalog_url(),
    };
    print!("{}", config.datasets.schema(dataset, format, &lake));
    Ok(ExitCode::SUCCESS)
}

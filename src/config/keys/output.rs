//! The keys of `[raw]` and `[parquet]`: how what is written is encoded.

use pipeline::encode::Encodings;
use pipeline::line_objects::LineCodec;

use crate::config::Settings;
use crate::raw::RawTo;
use crate::settings::{Fallback, Key, Kind};

pub(super) fn raw_keys() -> Vec<Key<Settings>> {
    vec![
        Key {
            name: "codec",
            kind: Kind::Text {
                form: "`gzip` or `zstd`",
                read: |settings, text| {
                    settings.worker.output.raw = Some(match text {
                        "gzip" => LineCodec::Gzip(1),
                        "zstd" => LineCodec::Zstd(1),
                        other => return Err(format!("codec must be gzip or zstd, not '{other}'")),
                    });
                    Ok(())
                },
                show: |settings| {
                    let name = match settings.worker.output.raw? {
                        LineCodec::Gzip(_) => "gzip",
                        LineCodec::Zstd(_) => "zstd",
                    };
                    Some(name.to_owned())
                },
            },
            default: Fallback::Is("gzip"),
            doc: "How raw files are compressed.",
        },
        Key {
            name: "level",
            kind: Kind::Level {
                read: |settings, level| {
                    let (codec, most) = match settings.worker.output.raw {
                        Some(LineCodec::Zstd(_)) => ("zstd", 19),
                        _ => ("gzip", 9),
                    };
                    if !(1..=most).contains(&level) {
                        return Err(format!("level must be 1 to {most} for {codec}, not {level}"));
                    }
                    match &mut settings.worker.output.raw {
                        Some(LineCodec::Gzip(kept)) => *kept = u32::try_from(level).unwrap_or(1),
                        Some(LineCodec::Zstd(kept)) => *kept = i32::try_from(level).unwrap_or(1),
                        None => {}
                    }
                    Ok(())
                },
                show: |settings| match settings.worker.output.raw? {
                    LineCodec::Gzip(level) => Some(i64::from(level)),
                    LineCodec::Zstd(level) => Some(i64::from(level)),
                },
            },
            default: Fallback::Is("1"),
            doc: "The level of compression: 1 to 9 for `gzip`, 1 to 19 for `zstd`.",
        },
        Key {
            name: "enabled",
            kind: Kind::Flag {
                read: |settings, enabled| {
                    if !enabled {
                        settings.worker.output.raw = None;
                    }
                },
                show: |settings| Some(settings.worker.output.raw.is_some()),
            },
            default: Fallback::Is("true"),
            doc: "Whether records are kept as they were received.",
        },
        Key {
            name: "identities",
            kind: Kind::Flag {
                read: |settings, identities| settings.worker.output.raw_identities = identities,
                show: |settings| Some(settings.worker.output.raw_identities),
            },
            default: Fallback::Is("true"),
            doc: "Whether raw files keep of each line which record it is, so that a replay can read them \
              ([formats.md](formats.md#identities-of-raw-lines)). Without it, a replay needs the stream.",
        },
        Key {
            name: "to",
            kind: Kind::Text {
                form: "`lake`, `firehose:NAME` or `firehose:ARN`",
                read: |settings, text| {
                    settings.worker.output.raw_to = RawTo::parse(text)?;
                    Ok(())
                },
                show: |settings| Some(settings.worker.output.raw_to.to_string()),
            },
            default: Fallback::Is("lake"),
            doc: "Where they go: into the lake exactly once, or to a delivery stream of Firehose at least once \
              ([aws.md](aws.md#the-raw-landing-through-firehose)).",
        },
    ]
}

pub(super) fn parquet_keys() -> Vec<Key<Settings>> {
    vec![
        Key {
            name: "file_bytes",
            kind: Kind::Size(|settings| &mut settings.worker.output.file_bytes, 1..=u64::MAX),
            default: Fallback::Is("128 MiB"),
            doc: "The encoded size at which a partition's file is closed and the next one begins.",
        },
        Key {
            name: "encodings",
            kind: Kind::Text {
                form: "`compatible` or `compact`",
                read: |settings, text| {
                    let found = Encodings::ALL.into_iter().find(|encodings| encodings.name() == text);
                    settings.worker.output.encodings =
                        found.ok_or_else(|| format!("encodings must be compatible or compact, not '{text}'"))?;
                    Ok(())
                },
                show: |settings| Some(settings.worker.output.encodings.name().to_owned()),
            },
            default: Fallback::Is("compatible"),
            doc: "Which encodings the pages have: those that every reader reads right, or the delta encodings as well, which some \
              versions of Spark, Glue and others refuse or misread ([readers.md](readers.md)).",
        },
        Key {
            name: "zstd_level",
            kind: Kind::Level {
                read: |settings, level| match i32::try_from(level) {
                    Ok(level @ 1..=19) => {
                        settings.worker.output.zstd_level = level;
                        Ok(())
                    }
                    _ => Err(format!("zstd_level must be 1 to 19, not {level}")),
                },
                show: |settings| Some(i64::from(settings.worker.output.zstd_level)),
            },
            default: Fallback::Is("1"),
            doc: "The level of compression of pages, 1 to 19. Higher levels cost much and gain little on such pages.",
        },
    ]
}

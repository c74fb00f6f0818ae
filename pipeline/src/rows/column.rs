//! One leaf column of a file, as hashes of the values of its column.
//!
//! Owns: what the hash of a value depends on. Does not own: which columns are compared (`mod`).
//!
//! The hash of a nested column is a sum, so the order of its fields makes no difference:
//!
//! - one term for each leaf that has a value in the row: the values, the nulls among them, and the repetition levels;
//! - one term for each group (struct, list, map) that is present in the row: which of its instances are present. The first leaf in the
//!   group adds it.
//!
//! A term that would say only "null" is 0. So a field that a file does not have is the same as one that is null.

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{BoolType, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::file::reader::RowGroupReader;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor, Type};

use crate::rows::UnreadableRows;

/// Kinds of values: equal bits of two kinds are different values.
const TEXT: u64 = 0x4528_21E6_38D0_1377;
const INTEGER: u64 = 0xBE54_66CF_34E9_0C6C;
const DOUBLE: u64 = 0xC0AC_29B7_C97C_50DD;
const BOOL: u64 = 0x3F84_D5B5_B547_0917;
const DATE: u64 = 0x9216_D5D9_8979_FB1B;
const TIME: u64 = 0xD131_0BA6_98DF_B5AC;
const DECIMAL: u64 = 0x2FFD_72DB_D01A_DFB7;
/// A null inside of a nested column.
const NULL: u64 = 0xB8E1_AFED_6A26_7E96;

/// What a leaf adds to the hashes.
pub(super) enum LeafRole {
    /// Nothing.
    NotCompared,
    /// A part of a column's value.
    Compared(Compared),
}

/// A leaf whose values are compared.
pub(super) struct Compared {
    /// The number of its column.
    column: usize,
    /// A hash of its path.
    path: u64,
    /// What its values mean.
    kind: u64,
    max_def: i16,
    /// Whether it is a column of its own, with at most one value a row.
    is_flat: bool,
    /// The groups around it, the outer ones first.
    groups: Vec<Group>,
}

/// A struct, list or map, or the repeated group in one.
#[derive(Clone)]
struct Group {
    path: Arc<str>,
    hash: u64,
    /// The definition level from which it is present.
    def: i16,
    /// The repetition level at which another instance begins.
    rep: i16,
    /// Whether this leaf adds its term.
    leads: bool,
}

impl LeafRole {
    pub(super) fn of(schema: &SchemaDescriptor, number: usize, column: usize) -> Self {
        let descriptor = schema.column(number);
        let parts = descriptor.path().parts();
        let mut groups = Vec::new();
        let (mut def, mut rep) = (0, 0);
        let mut at: Option<&Type> = Some(schema.root_schema());
        for (depth, part) in parts[..parts.len() - 1].iter().enumerate() {
            at =
                at.and_then(|group| group.get_fields().iter().find(|field| field.name() == part)).map(|field| &**field);
            match at.map(|field| field.get_basic_info().repetition()) {
                Some(Repetition::OPTIONAL) => def += 1,
                Some(Repetition::REPEATED) => (def, rep) = (def + 1, rep + 1),
                _ => {}
            }
            let path: Arc<str> = parts[..=depth].join(".").into();
            groups.push(Group { hash: hash_of_name(&path), path, def, rep, leads: false });
        }
        LeafRole::Compared(Compared {
            column,
            path: hash_of_name(&descriptor.path().string()),
            kind: kind_of(&descriptor),
            max_def: descriptor.max_def_level(),
            is_flat: parts.len() == 1 && descriptor.max_rep_level() == 0,
            groups,
        })
    }
}

impl Compared {
    /// A leaf that is read alone, as column 0; `None` if a row may have several values of it.
    pub(super) fn one_a_row(descriptor: &ColumnDescriptor) -> Option<Self> {
        (descriptor.max_rep_level() == 0).then(|| Compared {
            column: 0,
            path: 0,
            kind: kind_of(descriptor),
            max_def: descriptor.max_def_level(),
            is_flat: true,
            groups: Vec::new(),
        })
    }
}

/// Each group's term is added by one leaf in it: the first.
pub(super) fn choose_leading_leaves(leaves: &mut [LeafRole]) {
    let mut seen: Vec<Arc<str>> = Vec::new();
    for leaf in leaves {
        let LeafRole::Compared(leaf) = leaf else { continue };
        for group in &mut leaf.groups {
            group.leads = !seen.contains(&group.path);
            if group.leads {
                seen.push(Arc::clone(&group.path));
            }
        }
        leaf.groups.retain(|group| group.leads);
    }
}

/// What integers mean: plain numbers of any width are one kind.
fn kind_of(descriptor: &ColumnDescriptor) -> u64 {
    match descriptor.logical_type_ref() {
        Some(LogicalType::Date) => DATE,
        Some(LogicalType::Timestamp(_)) => TIME,
        Some(LogicalType::Decimal(_)) => mix(DECIMAL ^ u64::from(descriptor.type_scale().unsigned_abs())),
        _ if descriptor.physical_type() == PhysicalType::DOUBLE => DOUBLE,
        _ => INTEGER,
    }
}

/// Spreads a number's bits over the whole word; a bijection (the finalizer of `SplitMix64`).
#[inline]
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

/// A hash of bytes, 8 at a time. Each step is a bijection of what was read last, so texts of one length that differ in one word never have
/// the same hash; the length is in the state from the beginning.
#[inline]
fn hash(bytes: &[u8], seed: u64) -> u64 {
    let step = |state: u64, word: u64| {
        let state = (state ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        state ^ state >> 29
    };
    let mut state = mix(seed ^ mix(bytes.len() as u64));
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = step(state, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = step(state, u64::from_le_bytes(last));
    }
    mix(state)
}

/// The hash of a column's value becomes its share in the hash of the row.
#[inline]
pub(super) fn named(value: u64, name: u64) -> u64 {
    if value == 0 { 0 } else { mix(value ^ name) }
}

pub(super) fn hash_of_name(name: &str) -> u64 {
    mix(hash(name.as_bytes(), NULL))
}

#[inline]
pub(super) fn hash_of_text(text: &[u8]) -> u64 {
    not_null(hash(text, TEXT))
}

/// The hash of a number, a time or a truth value in a column of this type, by its bits.
pub(super) fn hash_of_number(bits: u64, descriptor: &ColumnDescriptor) -> u64 {
    let kind = if descriptor.physical_type() == PhysicalType::BOOLEAN { BOOL } else { kind_of(descriptor) };
    hash_of_bits(bits, kind)
}

#[inline]
fn hash_of_bits(bits: u64, kind: u64) -> u64 {
    not_null(mix(bits.wrapping_add(kind)))
}

/// 0 is the hash of null only.
#[inline]
fn not_null(hash: u64) -> u64 {
    if hash == 0 { 1 } else { hash }
}

/// A value as the hash sees it.
trait Hashed {
    fn hash(&self, kind: u64) -> u64;
}

impl Hashed for bool {
    fn hash(&self, _: u64) -> u64 {
        hash_of_bits(u64::from(*self), BOOL)
    }
}

impl Hashed for i32 {
    #[inline]
    fn hash(&self, kind: u64) -> u64 {
        hash_of_bits(i64::from(*self).cast_unsigned(), kind)
    }
}

impl Hashed for i64 {
    #[inline]
    fn hash(&self, kind: u64) -> u64 {
        hash_of_bits(self.cast_unsigned(), kind)
    }
}

impl Hashed for f64 {
    #[inline]
    fn hash(&self, kind: u64) -> u64 {
        hash_of_bits(self.to_bits(), kind)
    }
}

impl Hashed for parquet::data_type::ByteArray {
    #[inline]
    fn hash(&self, _: u64) -> u64 {
        hash_of_text(self.data())
    }
}

/// A leaf of one row group, which is read from its first row to its last.
pub(super) struct LeafReader<'r> {
    role: &'r Compared,
    values: Values,
    def: Vec<i16>,
    rep: Vec<i16>,
}

enum Values {
    Bool(ColumnReaderImpl<BoolType>, Vec<bool>),
    Int32(ColumnReaderImpl<Int32Type>, Vec<i32>),
    Int64(ColumnReaderImpl<Int64Type>, Vec<i64>),
    Double(ColumnReaderImpl<DoubleType>, Vec<f64>),
    Text(ColumnReaderImpl<ByteArrayType>, Vec<parquet::data_type::ByteArray>),
}

impl<'r> LeafReader<'r> {
    pub(super) fn open(group: &dyn RowGroupReader, number: usize, role: &'r Compared) -> Result<Self, UnreadableRows> {
        let values = match group.get_column_reader(number)? {
            ColumnReader::BoolColumnReader(reader) => Values::Bool(reader, Vec::new()),
            ColumnReader::Int32ColumnReader(reader) => Values::Int32(reader, Vec::new()),
            ColumnReader::Int64ColumnReader(reader) => Values::Int64(reader, Vec::new()),
            ColumnReader::DoubleColumnReader(reader) => Values::Double(reader, Vec::new()),
            ColumnReader::ByteArrayColumnReader(reader) => Values::Text(reader, Vec::new()),
            _ => {
                let column = group.metadata().column(number);
                let (path, physical) = (column.column_path().string(), column.column_type());
                return Err(UnreadableRows(format!(
                    "its column {path} has the type {physical}, which no file of ours has"
                )));
            }
        };
        Ok(LeafReader { role, values, def: Vec::new(), rep: Vec::new() })
    }

    /// Adds the leaf's part to the hashes of its column, for the next rows.
    pub(super) fn read_hashes(&mut self, rows: usize, columns: &mut [Vec<u64>]) -> Result<(), UnreadableRows> {
        let LeafReader { role, values, def, rep } = self;
        let hashes = &mut columns[role.column];
        match values {
            Values::Bool(reader, values) => read_hashes(role, reader, values, (def, rep), rows, hashes),
            Values::Int32(reader, values) => read_hashes(role, reader, values, (def, rep), rows, hashes),
            Values::Int64(reader, values) => read_hashes(role, reader, values, (def, rep), rows, hashes),
            Values::Double(reader, values) => read_hashes(role, reader, values, (def, rep), rows, hashes),
            Values::Text(reader, values) => read_hashes(role, reader, values, (def, rep), rows, hashes),
        }
    }
}

fn read_hashes<T>(
    role: &Compared,
    reader: &mut ColumnReaderImpl<T>,
    values: &mut Vec<T::T>,
    (def, rep): (&mut Vec<i16>, &mut Vec<i16>),
    rows: usize,
    hashes: &mut [u64],
) -> Result<(), UnreadableRows>
where
    T: DataType,
    T::T: Hashed,
{
    values.clear();
    def.clear();
    rep.clear();
    let (records, _, _) = reader.read_records(rows, Some(def), Some(rep), values)?;
    if records != rows {
        return Err(UnreadableRows("a column has fewer rows than the file".to_owned()));
    }
    if !role.is_flat {
        let mut kept = 0;
        let mut begin = 0;
        for hash in hashes {
            let next = rep.get(begin + 1..).and_then(|rest| rest.iter().position(|level| *level == 0));
            // Without repetition levels each row has one entry.
            let end = if rep.is_empty() { begin + 1 } else { next.map_or(def.len(), |length| begin + 1 + length) };
            *hash = hash.wrapping_add(nested(role, &def[begin..end], rep.get(begin..end), values, &mut kept));
            begin = end;
        }
    } else if values.len() == rows {
        for (hash, value) in hashes.iter_mut().zip(values.iter()) {
            *hash = value.hash(role.kind);
        }
    } else {
        let mut values = values.iter();
        for (hash, level) in hashes.iter_mut().zip(def.iter()) {
            if *level == role.max_def {
                *hash = values.next().map_or(0, |value| value.hash(role.kind));
            }
        }
    }
    Ok(())
}

/// The part of one row's hash that a leaf of a nested column has. `kept` counts the values that were used.
fn nested<V: Hashed>(role: &Compared, def: &[i16], rep: Option<&[i16]>, values: &[V], kept: &mut usize) -> u64 {
    let rep_of = |entry: usize| rep.map_or(0, |levels| levels[entry]);
    let level = |level: i16| u64::from(level.cast_unsigned());
    let mut sum = 0_u64;
    let (mut state, mut any) = (role.path, false);
    for (entry, def) in def.iter().enumerate() {
        let value = if *def == role.max_def {
            any = true;
            *kept += 1;
            values[*kept - 1].hash(role.kind)
        } else {
            NULL
        };
        state = mix(state ^ value).wrapping_add(level(rep_of(entry)));
    }
    if any {
        sum = sum.wrapping_add(mix(state));
    }
    for group in &role.groups {
        let (mut state, mut any) = (group.hash, false);
        for (entry, def) in def.iter().enumerate() {
            let rep = rep_of(entry);
            if rep <= group.rep {
                any |= *def >= group.def;
                state = mix(state ^ level(*def.min(&group.def)) << 16).wrapping_add(level(rep));
            }
        }
        if any {
            sum = sum.wrapping_add(mix(state));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::rows::RowIdentity;

    #[test]
    fn texts_that_differ_have_different_hashes_whatever_their_lengths() {
        // A hash with the length in the first byte took these for one.
        assert_ne!(hash_of_text(b"995581"), hash_of_text(b"8955581"));
        let texts: Vec<String> = (0..300_000).map(|number: u32| number.to_string()).collect();
        let values: HashSet<u64> = texts.iter().map(|text| hash_of_text(text.as_bytes())).collect();
        assert_eq!(values.len(), texts.len());
        let identities: HashSet<u128> =
            texts.iter().map(|text| RowIdentity::hash(b"orders", b"shard-1", text.as_bytes(), 0)).collect();
        assert_eq!(identities.len(), texts.len());
        let padded: HashSet<u64> = (0..40).map(|length| hash_of_text(&vec![0; length])).collect();
        assert_eq!(padded.len(), 40);
        assert_ne!(RowIdentity::hash(b"a", b"bc", b"1", 0), RowIdentity::hash(b"ab", b"c", b"1", 0));
    }

    #[test]
    fn numbers_of_every_kind_have_hashes_of_their_own() {
        let kinds = [INTEGER, DATE, TIME, DECIMAL];
        let numbers = (-1000..1000_i64).flat_map(|number| kinds.map(|kind| number.hash(kind)));
        assert_eq!(numbers.collect::<HashSet<u64>>().len(), 8000);
        assert_eq!(7_i32.hash(INTEGER), 7_i64.hash(INTEGER));
        assert_ne!(true.hash(0), false.hash(0));
    }
}

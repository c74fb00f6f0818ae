//! Everything that is written is read back, and nothing else is.

use proptest::prelude::*;

use super::*;

/// A line to write: its identity and its bytes.
#[derive(Debug, Clone)]
struct Case {
    identity: Identity,
    is_text: bool,
    bytes: u64,
}

fn new_lines(case: &Case) -> NewLines<'_> {
    let Identity { stream, shard, sequence, sub_sequence, arrival_ms, read_ms, line } = &case.identity;
    let sequence = match sequence.parse() {
        Ok(number) if case.is_text => Sequence::Number(number),
        _ => Sequence::Digits(sequence),
    };
    NewLines {
        stream,
        shard,
        sequence,
        sub_sequence: *sub_sequence,
        arrival_ms: *arrival_ms,
        read_ms: *read_ms,
        line: *line,
        count: 1,
        bytes: case.bytes,
        last_bytes: case.bytes,
    }
}

fn written(cases: &[Case]) -> Option<Vec<u8>> {
    let mut identities = Identities::default();
    cases.iter().for_each(|case| identities.add(&new_lines(case)));
    identities.finish()
}

fn read(field: Vec<u8>, bytes: impl IntoIterator<Item = u64>) -> Result<Vec<Identity>, FieldError> {
    let mut reader = IdentityReader::new(field)?;
    let identities =
        bytes.into_iter().map(|bytes| reader.next(usize::try_from(bytes).unwrap())).collect::<Result<_, _>>()?;
    assert!(reader.is_done());
    Ok(identities)
}

fn identity(stream: &str, shard: &str, sequence: &str, sub_sequence: u64, arrival_ms: i64) -> Identity {
    Identity {
        stream: stream.into(),
        shard: shard.into(),
        sequence: sequence.into(),
        sub_sequence,
        arrival_ms,
        read_ms: None,
        line: Line::Document,
    }
}

fn record(sequence: &str, sub_sequence: u64, arrival_ms: i64) -> Case {
    Case { identity: identity("events", "shard-1", sequence, sub_sequence, arrival_ms), is_text: false, bytes: 100 }
}

/// Digits of a number below 2¹⁹², of every length.
fn digits() -> impl Strategy<Value = String> {
    prop_oneof![
        (any::<u64>(), 0..64_u32).prop_map(|(number, shift)| (number >> shift).to_string()),
        "4959033827149025660855969253[0-9]{28}",
        "[1-5][0-9]{0,57}",
        Just("0".to_owned()),
        Just("6277101735386680763835789423207666416102355444464034512895".to_owned()),
    ]
}

fn cases() -> impl Strategy<Value = Vec<Case>> {
    let line = prop_oneof![8 => Just(0_usize), 1 => 0..LINES.len()].prop_map(|code| LINES[code]);
    let sub = prop_oneof![Just(0), 0..200_u64, any::<u64>()];
    let arrival = prop_oneof![1_736_764_200_000..1_736_764_300_000_i64, any::<i64>()];
    let read = prop_oneof![3 => Just(None), 1 => any::<i64>().prop_map(Some), 1 => Just(Some(1_736_764_200_000))];
    let name = prop_oneof![Just("events"), Just("größe"), Just("")];
    let one = (name, 0..5_u8, digits(), sub, arrival, read, line, any::<bool>(), 0..2_000_u64);
    let one = one.prop_map(|(stream, shard, sequence, sub_sequence, arrival_ms, read_ms, line, is_text, bytes)| {
        let identity = identity(stream, &format!("shard-{shard}"), &sequence, sub_sequence, arrival_ms);
        let is_text = is_text && sequence.parse::<u64>().is_ok();
        Case { identity: Identity { read_ms, line, ..identity }, is_text, bytes }
    });
    // Runs of alike lines, as sources have them, and single ones.
    let run = (one, 1..30_u64, any::<bool>()).prop_map(|(first, count, is_same)| {
        let mut run = vec![first];
        for n in 1..count {
            let mut next = run[run.len() - 1].clone();
            if next.is_text {
                let at: u64 = next.identity.sequence.parse().unwrap();
                next.identity.sequence = at.saturating_add(next.bytes + 1).to_string().into();
                next.bytes = n % 3 * 50;
            } else if is_same {
                next.identity.sub_sequence = next.identity.sub_sequence.saturating_add(1);
            }
            run.push(next);
        }
        run
    });
    proptest::collection::vec(run, 1..12).prop_map(|runs| runs.concat())
}

proptest! {
    #[test]
    fn every_identity_is_read_back_whatever_comes_before_it(cases in cases()) {
        let field = written(&cases).unwrap();
        let read = read(field, cases.iter().map(|case| case.bytes)).unwrap();
        let expected: Vec<Identity> = cases.into_iter().map(|case| case.identity).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn lines_that_are_added_at_once_are_those_that_are_added_one_by_one(
        groups in proptest::collection::vec((0..1_000_000_u64, proptest::collection::vec(0..300_u64, 1..40)), 1..8),
    ) {
        let (stream, shard): (Arc<str>, Arc<str>) = ("in".into(), "a.json".into());
        let (mut at_once, mut expected) = (Identities::default(), Vec::new());
        for (sequence, bytes) in &groups {
            let mut offset = *sequence;
            for bytes in bytes {
                expected.push((identity("in", "a.json", &offset.to_string(), 0, 7), *bytes));
                offset += bytes + 1;
            }
            at_once.add(&NewLines {
                stream: &stream,
                shard: &shard,
                sequence: Sequence::Number(*sequence),
                sub_sequence: 0,
                arrival_ms: 7,
                read_ms: None,
                line: Line::Document,
                count: bytes.len() as u64,
                bytes: offset - 1 - sequence,
                last_bytes: bytes[bytes.len() - 1],
            });
        }
        let field = at_once.finish().unwrap();
        let read = read(field, expected.iter().map(|(_, bytes)| *bytes)).unwrap();
        prop_assert_eq!(read, expected.into_iter().map(|(identity, _)| identity).collect::<Vec<_>>());
    }

    #[test]
    fn damaged_bytes_are_an_error_or_identities_and_never_a_panic(
        cases in cases(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut field = written(&cases).unwrap();
        for (at, byte) in changes {
            let at = at.index(field.len());
            field[at] = byte;
        }
        if is_cut {
            field.truncate(cut.index(field.len()));
        }
        let Ok(mut reader) = IdentityReader::new(field) else { return Ok(()) };
        for _ in 0..2_000 {
            if reader.next(10).is_err() {
                break;
            }
        }
    }

    #[test]
    fn a_number_is_its_digits_and_its_parts(digits in digits(), more in any::<u64>()) {
        let number = Number::parse(&digits);
        prop_assume!(number.is_some());
        let number = number.unwrap();
        prop_assert_eq!(&*number.to_digits(), &*digits);
        prop_assert_eq!(Number::of_parts(number.parts()), Some(number));
        if let Ok(small) = digits.parse::<u128>() {
            prop_assume!(small < u128::MAX - u128::from(more));
            prop_assert_eq!(&*number.plus(more).to_digits(), (small + u128::from(more)).to_string());
        }
    }

    #[test]
    fn a_field_is_found_among_others(before in any::<Vec<u8>>(), field in any::<Vec<u8>>(), after in any::<Vec<u8>>()) {
        let subfield = |id: &[u8], content: &[u8]| {
            [id, &u16::try_from(content.len()).unwrap().to_le_bytes(), content].concat()
        };
        let extra = [subfield(b"BC", &before), subfield(b"SL", &field), subfield(b"SL", &after)].concat();
        prop_assert_eq!(field_of_extra(&extra), Some(&field[..]));
        let other = subfield(b"BC", &before);
        prop_assert_eq!(field_of_extra(&other), None);
        prop_assert_eq!(field_of_extra(&extra[..before.len() + 4 + 3]), None);
        let frame = [b"SL", &field[..]].concat();
        prop_assert_eq!(field_of_frame(&frame), Some(&field[..]));
        prop_assert!(field_of_frame(b"xx").is_none());
    }
}

#[test]
fn the_stored_form_is_as_documented() {
    let cases = [record("300", 0, 1_000), record("300", 1, 1_000), record("300", 2, 1_000)];
    let expected = [
        &[1][..],
        // Bit 3: bits 0 to 35 of the sequence number; bit 4: the subsequence number; bit 5: the time of arrival.
        &[0b11_1000, 0, 6],
        b"events",
        &[7],
        b"shard-1",
        &[3],
        // 300 · 2 · 2, then two differences of zero.
        &[0xB0, 0x09, 0, 0],
        &[0, 4, 4],
        &[0xA0, 0x1F, 0, 0],
    ]
    .concat();
    assert_eq!(written(&cases).unwrap(), expected);
    let text = |sequence: &str| Case { is_text: true, ..record(sequence, 0, 0) };
    let lines = [text("0"), text("101"), text("202"), text("303")];
    // The first is not at the byte after the line before it, of which there is none: −1 · 2.
    let expected = [&[1, 0b1001, 0, 6][..], b"events", &[7], b"shard-1", &[4, 2, 1, 3]].concat();
    assert_eq!(written(&lines).unwrap(), expected);
}

#[test]
fn lines_of_a_file_cost_a_few_bytes_in_all_and_records_of_a_stream_a_few_each() {
    let mut identities = Identities::default();
    let (stream, shard): (Arc<str>, Arc<str>) = ("file:///in".into(), "a.json".into());
    for n in 0..10_u64 {
        identities.add(&NewLines {
            stream: &stream,
            shard: &shard,
            sequence: Sequence::Number(n * 100_000),
            sub_sequence: 0,
            arrival_ms: 1_736_764_200_000,
            read_ms: Some(1_736_764_200_000),
            line: Line::Document,
            count: 1_000,
            bytes: 99_999,
            last_bytes: 99,
        });
    }
    assert!(identities.finish().unwrap().len() < 60);
    // As Kinesis numbers records of one second: a counter in the bits above 80.
    let first = Number::parse("49590338271490256608559692538361571095921575989136588898").unwrap();
    let records: Vec<Case> = (0..1_000_u32)
        .map(|n| {
            let [top, between, bottom] = first.parts();
            let number = Number::of_parts([top + i128::from(n * 7 % 5 + n * 3), between + i128::from(n / 300), bottom]);
            record(&number.unwrap().to_digits(), 0, 1_736_764_200_000 + i64::from(n) * 2)
        })
        .collect();
    let bytes = written(&records).unwrap().len();
    assert!(bytes < 2_200, "{bytes} bytes for 1,000 records");
}

#[test]
fn what_cannot_be_stored_is_no_field_and_never_a_wrong_one() {
    let beyond = "6277101735386680763835789423207666416102355444464034512896";
    for sequence in [beyond, "007", "", "12x", "-1"] {
        assert_eq!(written(&[record("1", 0, 0), record(sequence, 0, 0), record("3", 0, 0)]), None, "{sequence}");
    }
    assert_eq!(Identities::default().finish(), None);
    assert!(Identities::default().has_room("events", "shard"));
    assert!(!Identities::default().has_room(&"x".repeat(FIELD_BYTES_MAX), "shard"));
    let long = Case { identity: identity(&"x".repeat(FIELD_BYTES_MAX), "s", "1", 0, 0), ..record("1", 0, 0) };
    assert_eq!(written(&[long]), None);
}

#[test]
fn fields_of_other_lines_and_later_formats_are_refused() {
    let field = written(&[record("1", 0, 0), record("2", 0, 0)]).unwrap();
    let mut reader = IdentityReader::new(field.clone()).unwrap();
    assert!(reader.next(100).is_ok() && !reader.is_done() && reader.next(100).is_ok() && reader.is_done());
    assert_eq!(reader.next(100), Err(FieldError::Damaged("there are more lines than identities")));
    assert_eq!(IdentityReader::new(vec![2, 0]).unwrap_err(), FieldError::Format(2));
    assert!(IdentityReader::new(Vec::new()).is_err());
    for end in 1..field.len() {
        assert!(IdentityReader::new(field[..end].to_vec()).unwrap().next(100).is_err(), "{end}");
    }
}

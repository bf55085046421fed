use super::*;

fn about() -> About {
    About {
        format: FORMAT,
        created: "2026-11-21T12:00:00Z".parse().expect("a time"),
        node: "pi".into(),
        version: "0.1.0".into(),
        engine: "sqlite".into(),
        cluster: "abc".into(),
        revision: 77,
        reason: Reason::OnDemand,
    }
}

fn object(number: u64, value: Vec<u8>) -> Object {
    Object {
        collection: if number.is_multiple_of(3) { "nodes" } else { "pods" }.into(),
        namespace: "default".into(),
        name: format!("n{number}"),
        created: number,
        revision: number * 2,
        value,
    }
}

/// Values that do not compress, so that there are several frames.
fn objects() -> Vec<Object> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..40).map(|n| object(n, (0..100_000).map(|_| random.u8(..)).collect())).collect()
}

fn written(about: &About, objects: &[Object]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), about, b"keys").expect("a writer");
    for o in objects {
        let key = [&*o.collection, &*o.namespace, &*o.name];
        writer.object(key, [o.created, o.revision], &o.value).expect("written");
    }
    writer.finish().expect("finished").0
}

fn read(bytes: &[u8]) -> Result<Vec<Object>, BadSnapshot> {
    let mut reader = Reader::new(bytes)?;
    let mut objects = Vec::new();
    while let Some(object) = reader.next_object()? {
        objects.push(object);
    }
    Ok(objects)
}

fn refusal(bytes: &[u8]) -> String {
    match read(bytes) {
        Ok(objects) => panic!("{} objects were read", objects.len()),
        Err(error) => error.to_string(),
    }
}

/// Where each frame starts.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut starts = vec![FIRST_LINE.len()];
    loop {
        let at = starts[starts.len() - 1];
        let length = u32::from_le_bytes(bytes[at + 1..at + 5].try_into().expect("a length"));
        let next = at + 5 + length as usize + 32;
        if next == bytes.len() {
            return starts;
        }
        starts.push(next);
    }
}

#[test]
fn what_is_written_is_read() {
    let objects = objects();
    let bytes = written(&about(), &objects);
    assert!(frames(&bytes).len() > 5, "several frames of objects");
    assert_eq!(read(&bytes).expect("read"), objects);
    let reader = Reader::new(bytes.as_slice()).expect("a reader");
    assert_eq!((reader.about(), reader.secrets()), (&about(), &b"keys"[..]));
    let (_, totals) = reader.check().expect("sound");
    assert_eq!((totals.objects, totals.bytes), (40, 4_000_000));
    assert_eq!(totals.collections["nodes"], 14);
    assert_eq!(read(&written(&about(), &[])).expect("read"), []);
}

#[test]
fn a_cut_is_found_wherever_it_is() {
    let bytes = written(&about(), &objects()[..3]);
    for length in (0..bytes.len()).step_by(1009).chain(bytes.len() - 40..bytes.len()) {
        let said = refusal(&bytes[..length]);
        assert!(said.contains("cut") && said.contains(&length.to_string()), "{length}: {said}");
    }
}

#[test]
fn a_flipped_bit_is_found_and_its_frame_named() {
    let bytes = written(&about(), &objects()[..30]);
    let starts = frames(&bytes);
    for (number, &start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(bytes.len());
        for at in [start, start + 5, (start + end) / 2, end - 1] {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            let said = refusal(&altered);
            assert!(said.contains(&format!("at byte {start}")), "{at}: {said}");
        }
    }
}

#[test]
fn frames_can_neither_be_left_out_nor_change_places() {
    let bytes = written(&about(), &objects());
    let starts = frames(&bytes);
    let (third, fourth, fifth) = (starts[2], starts[3], starts[4]);
    let without = [&bytes[..third], &bytes[fourth..]].concat();
    assert!(
        refusal(&without)
            .contains(&format!("altered: the checksum does not match at byte {third}"))
    );
    let swapped =
        [&bytes[..third], &bytes[fourth..fifth], &bytes[third..fourth], &bytes[fifth..]].concat();
    assert!(refusal(&swapped).contains(&format!("at byte {third}")));
    let longer = [&bytes[..], b"x"].concat();
    assert!(refusal(&longer).contains("something stands behind the end"));
}

#[test]
fn other_files_and_newer_formats_are_told() {
    assert_eq!(refusal(b"SQLite format 3\0 and more"), "it is no snapshot of Coracle");
    assert_eq!(refusal(b""), "it is cut: it ends at byte 0, where the first line should go on");
    let newer = About { format: FORMAT + 1, ..about() };
    let said = refusal(&written(&newer, &[]));
    assert_eq!(said, "it has format 2, this version reads up to 1");
}

#[test]
fn a_length_that_no_frame_has_takes_no_memory() {
    let mut bytes = written(&about(), &[]);
    let at = FIRST_LINE.len() + 1;
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refusal(&bytes).contains("a frame larger than any can be at byte 17"));
}

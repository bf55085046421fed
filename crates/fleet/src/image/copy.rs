//! Images as they come: compressed or not, mostly zeros.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::error::{Doing, ImageError};

/// Zeros of this length become a hole.
const BLOCK_BYTES: usize = 64 * 1024;

/// How an image is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// By gzip.
    Gzip,
    /// By xz.
    Xz,
    /// By zstd.
    Zstd,
}

impl Packing {
    /// What the file's first bytes say.
    pub fn of(image: &Path) -> Result<Self, ImageError> {
        let name = image.display();
        let mut head = Vec::new();
        File::open(image)
            .and_then(|file| file.take(8).read_to_end(&mut head))
            .doing(|| format!("reading {name}"))?;
        match head.as_slice() {
            [0x1f, 0x8b, ..] => Ok(Packing::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Packing::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Packing::Zstd),
            [b'Q', b'F', b'I', 0xfb, ..] => Err(ImageError::refused(
                format!("{name} is an image for virtual machines (qcow2)"),
                format!("qemu-img convert -O raw {name} debian.raw"),
            )),
            [b'P', b'K', 3, 4, ..] => Err(ImageError::refused(
                format!("{name} is a zip archive"),
                format!("unzip {name}, and name the image in it"),
            )),
            _ => Ok(Packing::Plain),
        }
    }
}

/// Writes the image, unpacked, to an empty file, with holes for zeros; its length.
pub fn unpack(image: &Path, target: &mut File) -> Result<u64, ImageError> {
    let doing = || format!("unpacking {}", image.display());
    let file = BufReader::with_capacity(BLOCK_BYTES, File::open(image).doing(doing)?);
    let length = match Packing::of(image)? {
        Packing::Plain => sparse(file, target),
        Packing::Gzip => sparse(flate2::bufread::MultiGzDecoder::new(file), target),
        Packing::Xz => sparse(lzma_rust2::XzReader::new(file, true), target),
        Packing::Zstd => zstd::Decoder::with_buffer(file).and_then(|reader| sparse(reader, target)),
    };
    let length = length.doing(doing)?;
    // Zeros at the end were left out, too.
    target.set_len(length).doing(doing)?;
    Ok(length)
}

/// Copies all of it to an empty file, and leaves out blocks of zeros; how much that was.
pub fn sparse(mut from: impl Read, to: &mut (impl Write + Seek)) -> io::Result<u64> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut length = 0;
    loop {
        let filled = fill(&mut from, &mut block)?;
        let bytes = &block[..filled];
        match bytes.iter().all(|byte| *byte == 0) {
            true => to.seek(SeekFrom::Current(filled as i64)).map(drop)?,
            false => to.write_all(bytes)?,
        }
        length += filled as u64;
        if filled < BLOCK_BYTES {
            return Ok(length);
        }
    }
}

/// Makes what is there the same as another file, and writes only blocks that differ. From `fresh` on
/// there is nothing yet, so that holes are passed over.
pub fn overwrite(
    from: &mut File,
    to: &mut (impl Read + Write + Seek),
    fresh: u64,
) -> io::Result<()> {
    let (mut wanted, mut found) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    let mut at = 0;
    loop {
        if at >= fresh {
            let Some(next) = next_data(from, at)? else { return Ok(()) };
            at = next / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        }
        from.seek(SeekFrom::Start(at))?;
        to.seek(SeekFrom::Start(at))?;
        let filled = fill(from, &mut wanted)?;
        let there = fill(to, &mut found[..filled])?;
        if wanted[..filled] != found[..there] {
            to.seek(SeekFrom::Start(at))?;
            to.write_all(&wanted[..filled])?;
        }
        at += filled as u64;
        if filled < BLOCK_BYTES {
            return Ok(());
        }
    }
}

/// Where a file has its next data, if there is more than holes. At a multiple of a block's length this
/// never goes back.
fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    match nix::unistd::lseek(file, at as i64, nix::unistd::Whence::SeekData) {
        Ok(next) => Ok(Some(next as u64)),
        Err(nix::errno::Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads until the block is full or there is no more.
pub fn fill(from: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match from.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// "hello", much of nothing, "world", and a little of nothing.
    fn content() -> Vec<u8> {
        let mut bytes = b"hello".to_vec();
        bytes.resize(40 * BLOCK_BYTES, 0);
        bytes.extend(b"world\0\0\0");
        bytes
    }

    #[test]
    fn what_is_packed_comes_out_whole_and_with_holes() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&content()).expect("packed");
        let zstd = zstd::encode_all(content().as_slice(), 1).expect("packed");
        for packed in [content(), gzip.finish().expect("packed"), zstd] {
            let folder = tempfile::tempdir().expect("a folder");
            let (from, to) = (folder.path().join("from"), folder.path().join("to"));
            std::fs::write(&from, packed).expect("written");
            let mut target = File::create(&to).expect("made");
            assert_eq!(unpack(&from, &mut target).expect("unpacked"), content().len() as u64);
            assert_eq!(std::fs::read(&to).expect("read"), content());
            let used = std::fs::metadata(&to).expect("there").blocks() * 512;
            assert!(used <= 3 * BLOCK_BYTES as u64, "{used} bytes are used");
        }
    }

    #[test]
    fn xz_comes_out_as_python_s_lzma_packed_it() {
        const PACKED: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a3e30d49006c5d00341949ee8dd7\
                              fa40ba2283cad76bc9fe037a9c9e629ae798bab29884be5aa9a78e4e418f99ff31716e2d06\
                              1e6893d3f3badeac29db0173ce1a1fb27efd44c6680321b5d3406853e066322085aeca72a8\
                              8709be1a4209adc01a4d98d2e8a3092aec91c4cc1620441b003fb8ee00b4b08d40ecf59427\
                              00018801ca9a0c0090171749b1c467fb020000000004595a";
        let digits = |at: usize| u8::from_str_radix(&PACKED[at..at + 2], 16).expect("digits");
        let packed: Vec<u8> = (0..PACKED.len()).step_by(2).map(digits).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from.xz"), folder.path().join("to"));
        std::fs::write(&from, packed).expect("written");
        unpack(&from, &mut File::create(&to).expect("made")).expect("unpacked");
        let mut expected = b"hello".to_vec();
        expected.resize(200_005, 0);
        expected.extend(b"world");
        assert_eq!(std::fs::read(&to).expect("read"), expected);
    }

    #[test]
    fn only_what_differs_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = (folder.path().join("to"), vec![7; 3 * BLOCK_BYTES]);
        std::fs::write(&path, &old).expect("written");
        let mut wanted = old;
        wanted[BLOCK_BYTES] = 0;
        wanted.extend(b"more");
        let mut to = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("open");
        let mut from = tempfile::tempfile().expect("a file");
        from.write_all(&wanted).expect("written");
        overwrite(&mut from, &mut to, 3 * BLOCK_BYTES as u64).expect("written");
        assert_eq!(std::fs::read(&path).expect("read"), wanted);
    }

    #[test]
    fn what_cannot_be_unpacked_is_refused_with_the_way_to_do_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("debian.qcow2");
        std::fs::write(&image, b"QFI\xfb\0\0\0\x03").expect("written");
        let refused = Packing::of(&image).expect_err("refused");
        assert!(refused.hint().expect("a hint").starts_with("qemu-img convert -O raw "));
    }
}

//! Encryption with a passphrase in age's format (version 1, the scrypt recipient), so that a
//! snapshot can be opened with the `age` tool and nothing of ours.
//!
//! ```text
//! age-encryption.org/v1
//! -> scrypt <salt> <log2 of the work>
//! <the file key, sealed with the passphrase>
//! --- <HMAC over the lines above>
//! <nonce> <chunks of 64 KiB, each sealed with its number and whether it is the last>
//! ```
//! The `age` crate was turned down: it brings a second set of ciphers, and all that is needed here
//! is in ring already.

use std::io::{self, BufRead, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, hmac};

/// The first line of every such file.
pub const INTRODUCTION: &str = "age-encryption.org/v1";
/// 32 MiB and a quarter of a second on a board. The tool's own default of 18 takes 256 MiB, which a
/// board with 1 GiB does not have to spare.
const WORK_LOG_N: u8 = 15;
/// The most that is believed of a file: what the tool itself writes, so that a file that was
/// decrypted and encrypted again elsewhere still opens.
const MAX_WORK_LOG_N: u8 = 18;
const CHUNK_BYTES: usize = 64 << 10;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const STREAM_NONCE_BYTES: usize = 16;
const MAX_HEADER_LINE_BYTES: u64 = 256;

/// Why a file cannot be decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    /// The passphrase does not open the file key.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// The header is no header, or was altered.
    #[error("the encryption header is damaged ({0})")]
    Header(&'static str),
    /// It is encrypted to something else than a passphrase.
    #[error("the file is not encrypted with a passphrase")]
    OtherRecipient,
    /// More work is asked for than a board can do.
    #[error("the passphrase takes 2^{0} rounds of scrypt, more than 2^{MAX_WORK_LOG_N}")]
    TooMuchWork(u8),
    /// A chunk does not open.
    #[error("the encrypted data is altered or cut at byte {0} or soon after")]
    Chunk(u64),
    /// Something stands behind the last chunk.
    #[error("there is something behind the end of the encrypted data")]
    Trailing,
}

impl From<AgeError> for io::Error {
    fn from(error: AgeError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

fn header_error(what: &'static str) -> io::Error {
    AgeError::Header(what).into()
}

/// The key and the number of the next chunk.
struct Stream {
    key: LessSafeKey,
    chunk: u64,
}

impl Stream {
    fn new(file_key: &[u8; KEY_BYTES], nonce: &[u8; STREAM_NONCE_BYTES]) -> Self {
        Stream { key: sealing_key(&derive(file_key, nonce, b"payload")), chunk: 0 }
    }

    /// The chunk's number and, in the last byte, whether it is the last.
    fn nonce(&mut self, last: bool) -> Nonce {
        let mut bytes = [0; NONCE_LEN];
        bytes[3..11].copy_from_slice(&self.chunk.to_be_bytes());
        bytes[11] = u8::from(last);
        self.chunk += 1;
        Nonce::assume_unique_for_key(bytes)
    }
}

fn sealing_key(bytes: &[u8; 32]) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("ChaCha20's keys have 32 bytes");
    LessSafeKey::new(key)
}

struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

fn derive(file_key: &[u8; KEY_BYTES], salt: &[u8], purpose: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(file_key)
        .expand(&[purpose], KeyLength)
        .and_then(|okm| okm.fill(&mut out))
        .expect("one block of HKDF");
    out
}

fn header_key(file_key: &[u8; KEY_BYTES]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &derive(file_key, &[], b"header"))
}

fn wrapping_key(passphrase: &str, salt: &[u8], log_n: u8) -> io::Result<LessSafeKey> {
    let params = scrypt::Params::new(log_n, 8, 1).map_err(io::Error::other)?;
    let salt = [&b"age-encryption.org/v1/scrypt"[..], salt].concat();
    let mut key = [0; 32];
    scrypt::scrypt(passphrase.as_bytes(), &salt, &params, &mut key).map_err(io::Error::other)?;
    Ok(sealing_key(&key))
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(bytes)
}

/// Encrypts what is written. [`finish`](Self::finish) writes the end; without it the file is cut.
pub struct Encrypter<W: Write> {
    out: W,
    stream: Stream,
    pending: Vec<u8>,
}

impl<W: Write> Encrypter<W> {
    /// Writes the header.
    pub fn new(mut out: W, passphrase: &str) -> io::Result<Self> {
        let file_key: [u8; KEY_BYTES] = random()?;
        let salt: [u8; SALT_BYTES] = random()?;
        let mut sealed = file_key.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        wrapping_key(passphrase, &salt, WORK_LOG_N)?
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed)
            .map_err(|_| io::Error::other("sealing the file key failed"))?;
        let header = format!(
            "{INTRODUCTION}\n-> scrypt {} {WORK_LOG_N}\n{}\n---",
            BASE64.encode(salt),
            BASE64.encode(&sealed)
        );
        let tag = hmac::sign(&header_key(&file_key), header.as_bytes());
        writeln!(out, "{header} {}", BASE64.encode(tag))?;
        let nonce = random()?;
        out.write_all(&nonce)?;
        let pending = Vec::with_capacity(CHUNK_BYTES + TAG_BYTES);
        Ok(Encrypter { out, stream: Stream::new(&file_key, &nonce), pending })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = self.stream.nonce(last);
        self.stream
            .key
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut self.pending)
            .map_err(|_| io::Error::other("sealing a chunk failed"))?;
        self.out.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// Writes the last chunk and gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Encrypter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // A full chunk waits for more, since only what follows tells that it is not the last.
        if self.pending.len() == CHUNK_BYTES {
            self.seal(false)?;
        }
        let taken = data.len().min(CHUNK_BYTES - self.pending.len());
        self.pending.extend_from_slice(&data[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Decrypts what is read. Nothing of a chunk is given out before all of it was checked.
pub struct Decrypter<R: BufRead> {
    input: R,
    stream: Stream,
    open: Vec<u8>,
    given: usize,
    /// Where in the file the next chunk starts.
    at: u64,
    ended: bool,
}

impl<R: BufRead> Decrypter<R> {
    /// Reads the header and opens the file key.
    pub fn new(mut input: R, passphrase: &str) -> io::Result<Self> {
        let mut header = String::new();
        if line(&mut input, &mut header)? != INTRODUCTION {
            return Err(header_error("it does not start as age's version 1 does"));
        }
        let recipient = line(&mut input, &mut header)?;
        let (salt, log_n) = scrypt_recipient(&recipient)?;
        let sealed = line(&mut input, &mut header)?;
        let file_key = open_file_key(passphrase, &salt, log_n, &sealed)?;
        let end = line(&mut input, &mut header)?;
        let tag = end.strip_prefix("--- ").and_then(|tag| BASE64.decode(tag).ok());
        let tag = tag.ok_or_else(|| header_error("its end is missing"))?;
        let covered = header.len() - end.len() - 1 + "---".len();
        hmac::verify(&header_key(&file_key), &header.as_bytes()[..covered], &tag)
            .map_err(|_| header_error("it does not match its own checksum"))?;
        let mut nonce = [0; STREAM_NONCE_BYTES];
        input.read_exact(&mut nonce).map_err(|_| header_error("the file ends behind it"))?;
        let at = (header.len() + STREAM_NONCE_BYTES) as u64;
        let stream = Stream::new(&file_key, &nonce);
        let open = Vec::with_capacity(CHUNK_BYTES + TAG_BYTES);
        Ok(Decrypter { input, stream, open, given: 0, at, ended: false })
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        self.open.clear();
        self.given = 0;
        let limit = (CHUNK_BYTES + TAG_BYTES) as u64;
        self.input.by_ref().take(limit).read_to_end(&mut self.open)?;
        let last = self.input.fill_buf()?.is_empty();
        let (at, length, first) = (self.at, self.open.len(), self.stream.chunk == 0);
        self.at += length as u64;
        self.ended = last;
        let nonce = self.stream.nonce(last);
        let opened = self.stream.key.open_in_place(nonce, Aad::empty(), &mut self.open);
        let kept = opened.map_err(|_| AgeError::Chunk(at))?.len();
        // An empty last chunk could only be there to lengthen the file.
        if kept == 0 && !first {
            return Err(AgeError::Trailing.into());
        }
        self.open.truncate(kept);
        Ok(())
    }
}

impl<R: BufRead> Read for Decrypter<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.given == self.open.len() {
            if self.ended {
                return Ok(0);
            }
            self.next_chunk()?;
        }
        let taken = out.len().min(self.open.len() - self.given);
        out[..taken].copy_from_slice(&self.open[self.given..self.given + taken]);
        self.given += taken;
        Ok(taken)
    }
}

/// Reads one line of the header, without its end, and notes it.
fn line(input: &mut impl BufRead, header: &mut String) -> io::Result<String> {
    let mut bytes = Vec::new();
    input.by_ref().take(MAX_HEADER_LINE_BYTES).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(header_error("it is cut"));
    }
    let text = String::from_utf8(bytes).map_err(|_| header_error("it is no text"))?;
    header.push_str(&text);
    header.push('\n');
    Ok(text)
}

fn scrypt_recipient(line: &str) -> io::Result<([u8; SALT_BYTES], u8)> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["->", kind, arguments @ ..] = words.as_slice() else {
        return Err(header_error("there is no recipient"));
    };
    if *kind != "scrypt" {
        return Err(AgeError::OtherRecipient.into());
    }
    let [salt, work] = arguments else { return Err(header_error("the recipient is incomplete")) };
    let salt = BASE64.decode(salt).ok().and_then(|salt| salt.try_into().ok());
    let salt = salt.ok_or_else(|| header_error("the salt is no salt"))?;
    let work: u8 = work.parse().map_err(|_| header_error("the work is no number"))?;
    match work {
        0 => Err(header_error("the work is no number")),
        1..=MAX_WORK_LOG_N => Ok((salt, work)),
        more => Err(AgeError::TooMuchWork(more).into()),
    }
}

fn open_file_key(
    passphrase: &str,
    salt: &[u8],
    log_n: u8,
    sealed: &str,
) -> io::Result<[u8; KEY_BYTES]> {
    let mut sealed = BASE64
        .decode(sealed)
        .ok()
        .filter(|sealed| sealed.len() == KEY_BYTES + TAG_BYTES)
        .ok_or_else(|| header_error("the file key is no key"))?;
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let opened = wrapping_key(passphrase, salt, log_n)?
        .open_in_place(nonce, Aad::empty(), &mut sealed)
        .map_err(|_| AgeError::WrongPassphrase)?;
    (&*opened).try_into().map_err(|_| header_error("the file key is no key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encrypts something small at once.
    fn seal(data: &[u8], passphrase: &str) -> io::Result<Vec<u8>> {
        let mut out = Encrypter::new(Vec::new(), passphrase)?;
        out.write_all(data)?;
        out.finish()
    }

    /// Decrypts something small at once.
    fn open(data: &[u8], passphrase: &str) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decrypter::new(data, passphrase)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn why(sealed: &[u8], passphrase: &str) -> AgeError {
        let error = open(sealed, passphrase).expect_err("refused");
        *error.get_ref().and_then(|e| e.downcast_ref()).unwrap_or_else(|| panic!("{error}"))
    }

    #[test]
    fn what_is_sealed_opens_at_every_length_around_a_chunk() {
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let data: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let sealed = seal(&data, "correct horse").expect("sealed");
            assert_eq!(open(&sealed, "correct horse").expect("opened"), data, "{length}");
        }
    }

    #[test]
    fn a_wrong_passphrase_is_told_from_damage() {
        let sealed = seal(b"secret", "right").expect("sealed");
        assert_eq!(why(&sealed, "wrong"), AgeError::WrongPassphrase);
        let mut altered = sealed.clone();
        *altered.last_mut().expect("bytes") ^= 1;
        assert!(matches!(why(&altered, "right"), AgeError::Chunk(_)));
        assert!(matches!(why(&sealed[..sealed.len() - 1], "right"), AgeError::Chunk(_)));
        assert_eq!(why(b"age-encryption.org/v1\n-> X25519 abc\n", "x"), AgeError::OtherRecipient);
    }

    #[test]
    fn chunks_can_neither_be_left_out_nor_put_at_the_end() {
        let data = vec![9; 2 * CHUNK_BYTES + 5];
        let sealed = seal(&data, "p").expect("sealed");
        let payload = sealed.len() - (2 * (CHUNK_BYTES + TAG_BYTES) + 5 + TAG_BYTES);
        let without_last = &sealed[..payload + 2 * (CHUNK_BYTES + TAG_BYTES)];
        assert!(matches!(why(without_last, "p"), AgeError::Chunk(_)));
        let without_first =
            [&sealed[..payload], &sealed[payload + CHUNK_BYTES + TAG_BYTES..]].concat();
        assert_eq!(why(&without_first, "p"), AgeError::Chunk(payload as u64));
    }

    #[test]
    fn every_byte_of_the_header_counts() {
        let sealed = seal(b"x", "p").expect("sealed");
        let end = sealed.windows(4).position(|w| w == b"--- ").expect("an end") + 4 + 43;
        for at in (0..end).step_by(5) {
            let mut altered = sealed.clone();
            altered[at] ^= 2;
            assert!(open(&altered, "p").is_err(), "byte {at} was altered");
        }
    }

    #[test]
    fn a_file_of_the_tool_opens() {
        // Made by age 1.1.1 with the passphrase "correct horse".
        let text = include_bytes!("testdata/age-1.1.1.age");
        assert_eq!(open(text, "correct horse").expect("opened"), b"made by age\n");
    }
}

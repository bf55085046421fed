//! Snapshots in a storage that speaks S3. Requests are signed by `rusty-s3`, which does no network
//! of its own, and sent by the HTTP and TLS that are in the binary already.

mod wire;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use rusty_s3::actions::{CompleteMultipartUploadResponse, CreateMultipartUpload, ListObjectsV2};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use sha2::{Digest, Sha256};

use self::wire::Wire;
use super::Folder;
use super::names::{self, Listed};
use super::options::S3Options;
use crate::failure::{Failure, Hint, Outcome, While};

/// Larger files go up in parts of this size, the least that S3 allows: only one is in memory.
const PART_BYTES: usize = 5 << 20;
/// The most parts that S3 allows.
const MAX_PARTS: usize = 10_000;
/// How long a signature is good for.
const SIGNATURE_LIFE: Duration = Duration::from_secs(900);
/// A list goes no further; whoever has more keeps other things there.
const MAX_LISTED: usize = 10_000;

/// A folder of a bucket.
pub struct Storage {
    bucket: Bucket,
    credentials: Option<Credentials>,
    /// With its slash at the end; empty for the bucket itself.
    folder: String,
    wire: Wire,
}

impl Storage {
    /// The storage that the flags name; nothing is sent yet.
    pub fn new(options: &S3Options) -> Outcome<Self> {
        let Some(bucket) = options.s3_bucket.clone().filter(|name| !name.is_empty()) else {
            return Err(Failure::new("no bucket is named").hint("name one with --s3-bucket"));
        };
        let scheme = if options.s3_insecure { "http" } else { "https" };
        let endpoint = match options.s3_endpoint.contains("://") {
            true => options.s3_endpoint.clone(),
            false => format!("{scheme}://{}", options.s3_endpoint),
        };
        let hint = || "--s3-endpoint takes a host and a port, such as nas.local:9000".to_owned();
        let url = endpoint.parse().doing(|| format!("reading {endpoint}")).hint(hint)?;
        // Storages at home have one name; buckets as parts of it are for clouds, which take this too.
        let bucket = Bucket::new(url, UrlStyle::Path, bucket, options.s3_region.clone())
            .map_err(|error| error.to_string())
            .doing(|| format!("reading {endpoint}"))
            .hint(hint)?;
        let folder = options.s3_folder.as_deref().unwrap_or_default().trim_matches('/');
        Ok(Storage {
            bucket,
            credentials: credentials(options)?,
            folder: if folder.is_empty() { String::new() } else { format!("{folder}/") },
            wire: Wire::new(options)?,
        })
    }

    /// What a person finds a snapshot by.
    pub fn location(&self, name: &str) -> String {
        format!("s3://{}/{}{name}", self.bucket.name(), self.folder)
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }

    /// The snapshots, newest first.
    pub async fn list(&self) -> Outcome<Vec<Listed>> {
        let doing = || format!("listing {}", self.location(""));
        let mut listed = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut action = self.bucket.list_objects_v2(self.credentials.as_ref());
            action.with_prefix(self.folder.as_str());
            if let Some(token) = &token {
                action.with_continuation_token(token.as_str());
            }
            let url = action.sign(SIGNATURE_LIFE);
            let text = self.wire.text(Method::GET, url.as_str(), Bytes::new()).await;
            let page = ListObjectsV2::parse_response(&text.map_err(|e| e.within(doing()))?)
                .doing(doing)
                .hint(|| "see whether --s3-endpoint speaks S3".into())?;
            listed.extend(page.contents.iter().filter_map(|object| self.listed(object)));
            token = page.next_continuation_token;
            if token.is_none() || listed.len() >= MAX_LISTED {
                break;
            }
        }
        listed.sort_by(|a: &Listed, b| b.created.cmp(&a.created).then_with(|| a.name.cmp(&b.name)));
        Ok(listed)
    }

    fn listed(
        &self,
        object: &rusty_s3::actions::list_objects_v2::ListObjectsContent,
    ) -> Option<Listed> {
        let name = object.key.strip_prefix(&self.folder)?;
        if !names::is_snapshot(name) || name.contains('/') {
            return None;
        }
        let modified = || object.last_modified.as_deref()?.parse::<Timestamp>().ok();
        Some(Listed {
            name: name.to_owned(),
            location: self.location(name),
            size: object.size.unwrap_or_default(),
            created: names::created(name).or_else(modified).unwrap_or_default(),
            encrypted: names::is_encrypted(name),
        })
    }

    /// Stores a file and reads it back. What fails leaves nothing.
    pub async fn put(&self, name: &str, path: &Path) -> Outcome {
        let doing = || format!("storing {}", self.location(name));
        let mut file = File::open(path).doing(|| format!("reading {}", path.display()))?;
        let size = file.metadata().doing(doing)?.len();
        let stored = match size <= PART_BYTES as u64 {
            true => self.put_whole(name, &mut file).await,
            false => self.put_parts(name, &mut file).await,
        };
        let sent = stored.map_err(|error| error.within(doing()))?;
        let mut back = Sink { hash: Sha256::new(), file: None };
        self.fetch(name, &mut back).await?;
        match back.sum() == sent {
            true => Ok(()),
            false => {
                self.remove(name).await?;
                Err(Failure::new(format!(
                    "{} does not read back as it was sent",
                    self.location(name)
                ))
                .hint("see whether the storage is well; the snapshot on this board is sound"))
            }
        }
    }

    async fn put_whole(&self, name: &str, file: &mut File) -> Outcome<[u8; 32]> {
        let part = next_part(file)?;
        let key = self.key(name);
        let url = self.bucket.put_object(self.credentials.as_ref(), &key).sign(SIGNATURE_LIFE);
        self.wire.text(Method::PUT, url.as_str(), part.clone()).await?;
        Ok(Sha256::digest(&part).into())
    }

    async fn put_parts(&self, name: &str, file: &mut File) -> Outcome<[u8; 32]> {
        let key = self.key(name);
        let credentials = self.credentials.as_ref();
        let url = self.bucket.create_multipart_upload(credentials, &key).sign(SIGNATURE_LIFE);
        let text = self.wire.text(Method::POST, url.as_str(), Bytes::new()).await?;
        let upload = CreateMultipartUpload::parse_response(&text)
            .doing(|| "starting an upload in parts".into())
            .hint(|| "see whether --s3-endpoint speaks S3".into())?;
        let sent = self.send_parts(&key, upload.upload_id(), file).await;
        if sent.is_err() {
            // Parts of an upload that goes nowhere would be kept, and paid for.
            let abort = self.bucket.abort_multipart_upload(credentials, &key, upload.upload_id());
            let url = abort.sign(SIGNATURE_LIFE);
            if let Err(error) = self.wire.text(Method::DELETE, url.as_str(), Bytes::new()).await {
                tracing::warn!(error = %base::chain(&error), "an upload that failed was not cleared");
            }
        }
        sent
    }

    async fn send_parts(&self, key: &str, upload: &str, file: &mut File) -> Outcome<[u8; 32]> {
        let credentials = self.credentials.as_ref();
        let (mut hash, mut tags) = (Sha256::new(), Vec::new());
        loop {
            let part = next_part(file)?;
            if part.is_empty() {
                break;
            }
            if tags.len() == MAX_PARTS {
                return Err(Failure::new("the snapshot has more parts than S3 allows"));
            }
            hash.update(&part);
            let number = u16::try_from(tags.len() + 1).doing(|| "numbering a part".into())?;
            let action = self.bucket.upload_part(credentials, key, number, upload);
            let url = action.sign(SIGNATURE_LIFE);
            tags.push(self.wire.tag(url.as_str(), part).await?);
        }
        let tags = tags.iter().map(String::as_str);
        let action = self.bucket.complete_multipart_upload(credentials, key, upload, tags);
        let url = action.sign(SIGNATURE_LIFE);
        let text = self.wire.text(Method::POST, url.as_str(), action.body().into()).await?;
        // S3 may say 200 and fail all the same.
        CompleteMultipartUploadResponse::parse(&text)
            .doing(|| "ending an upload in parts".into())
            .hint(|| "see whether the storage is well".into())?;
        Ok(hash.finalize().into())
    }

    /// Fetches a snapshot into a file.
    pub async fn get(&self, name: &str, file: &mut File) -> Outcome {
        let mut sink = Sink { hash: Sha256::new(), file: Some(file) };
        self.fetch(name, &mut sink).await?;
        file.sync_all().doing(|| format!("writing what {} holds", self.location(name)))
    }

    async fn fetch(&self, name: &str, sink: &mut Sink<'_>) -> Outcome {
        let key = self.key(name);
        let url = self.bucket.get_object(self.credentials.as_ref(), &key).sign(SIGNATURE_LIFE);
        let fetched = self.wire.download(url.as_str(), |piece| sink.take(piece)).await;
        fetched.map_err(|error| error.within(format!("fetching {}", self.location(name))))
    }

    /// Whether a snapshot can be restored, as far as can be told without its passphrase. It is
    /// fetched into `folder` for that.
    pub async fn is_good(
        &self,
        name: &str,
        folder: &Folder,
        passphrase: Option<&str>,
    ) -> Outcome<bool> {
        let (path, mut file) = folder.fetched(name)?;
        let good = match self.get(name, &mut file).await {
            Ok(()) => {
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                folder.look(&file, passphrase).await
            }
            Err(failure) => Err(failure),
        };
        // What stays is cleared by the next snapshot.
        let _ = std::fs::remove_file(&path);
        good
    }

    /// Removes a snapshot.
    pub async fn remove(&self, name: &str) -> Outcome {
        let key = self.key(name);
        let url = self.bucket.delete_object(self.credentials.as_ref(), &key).sign(SIGNATURE_LIFE);
        let removed = self.wire.text(Method::DELETE, url.as_str(), Bytes::new()).await;
        removed.map(drop).map_err(|error| error.within(format!("removing {}", self.location(name))))
    }
}

/// Where what is fetched goes: into its hash, and into a file.
struct Sink<'a> {
    hash: Sha256,
    file: Option<&'a mut File>,
}

impl Sink<'_> {
    fn take(&mut self, piece: &[u8]) -> std::io::Result<()> {
        self.hash.update(piece);
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(piece))
    }

    fn sum(self) -> [u8; 32] {
        self.hash.finalize().into()
    }
}

fn next_part(file: &mut File) -> Outcome<Bytes> {
    let mut part = Vec::with_capacity(PART_BYTES);
    Read::by_ref(file)
        .take(PART_BYTES as u64)
        .read_to_end(&mut part)
        .doing(|| "reading the snapshot that is stored".into())?;
    Ok(part.into())
}

/// No keys at all: the storage lets this machine in by other means.
fn credentials(options: &S3Options) -> Outcome<Option<Credentials>> {
    match (&options.s3_access_key, &options.s3_secret_key) {
        (None, None) => Ok(None),
        (Some(key), Some(secret)) => Ok(Some(match &options.s3_session_token {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        })),
        _ => Err(Failure::new("only one half of the S3 keys is given")
            .hint("give both --s3-access-key and --s3-secret-key")),
    }
}

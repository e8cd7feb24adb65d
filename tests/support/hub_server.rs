//! A server on the loopback interface that answers as the Hugging Face Hub does, with the faults that a test asks for.
//! Large files are on another host (here: another port), to which the Hub redirects.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

/// A commit of the models here.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong with an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status and headers instead of an answer.
    Status(u16, Vec<(&'static str, String)>),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The server falls silent after so many bytes.
    Silence(usize),
    /// Half of the body, a pause, and the rest.
    Pause(Duration),
    /// A byte of the body is another one.
    Flip,
    /// The length that the headers tell is so much larger than the body.
    LongerLength(usize),
    /// All of the file, whatever part is asked for.
    Whole,
    /// Another part than the one that is asked for.
    OtherPart,
    /// The file has changed since it was described.
    OtherVersion,
    /// Without the header.
    Without(&'static str),
}

#[derive(Default)]
struct State {
    models: BTreeMap<String, Model>,
    faults: Vec<(String, usize, Fault)>,
    log: Vec<String>,
}

/// A repository.
#[derive(Clone, Default)]
pub struct Model {
    pub branches: BTreeMap<String, String>,
    pub commits: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The token without which nobody sees it.
    pub token: Option<String>,
    /// Whether its terms must be accepted first.
    pub is_gated: bool,
    /// Where it is now.
    pub moved_to: Option<String>,
}

pub struct HubServer {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Whether parts of it may be asked for.
    has_ranges: bool,
}

impl HubServer {
    pub fn start() -> Self {
        Self::with_storage(true)
    }

    /// One that redirects to a path of its own for large files, as mirrors do.
    pub fn on_one_host() -> Self {
        Self::with_storage(false)
    }

    fn with_storage(is_elsewhere: bool) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (hub, storage) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let endpoint = format!("http://{}", hub.local_addr().unwrap());
        let storage_address = match is_elsewhere {
            true => format!("http://{}", storage.local_addr().unwrap()),
            false => String::new(),
        };
        for (listener, is_hub) in [(hub, true), (storage, false)] {
            let (state, storage_address) = (state.clone(), storage_address.clone());
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let (state, storage_address) = (state.clone(), storage_address.clone());
                    thread::spawn(move || serve(&stream, &state, is_hub.then_some(&*storage_address)));
                }
            });
        }
        Self { endpoint, state }
    }

    /// A model with one commit, the main branch.
    pub fn add(&self, name: &str, files: &[(&str, &[u8])]) {
        let mut model = Model::default();
        model.branches.insert("main".into(), COMMIT.into());
        let files = files.iter().map(|(name, content)| (name.to_string(), content.to_vec())).collect();
        model.commits.insert(COMMIT.into(), files);
        self.state.lock().unwrap().models.insert(name.into(), model);
    }

    /// Changes a model.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Model)) {
        change(self.state.lock().unwrap().models.get_mut(name).unwrap());
    }

    /// The next `times` requests whose line (`GET /owner/name/resolve/main/config.json`, `GET /storage/HASH/FILE`)
    /// contains `part` go wrong.
    pub fn fail(&self, part: &str, times: usize, fault: Fault) {
        self.state.lock().unwrap().faults.push((part.into(), times, fault));
    }

    /// The requests since the last call: method, path, `Range` and whether there was a token.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }
}

impl State {
    fn fault(&mut self, line: &str) -> Option<Fault> {
        let found = self.faults.iter_mut().find(|(part, times, _)| *times > 0 && line.contains(&**part))?;
        found.1 -= 1;
        Some(found.2.clone())
    }

    /// The Hub's answer.
    fn resolve(&self, request: &Request, storage: &str) -> Reply {
        if request.path.starts_with("/storage/") {
            return self.stored(request);
        }
        let Some((name, rest)) = request.path[1..].split_once("/resolve/") else {
            return Reply::error(404, "", "no such page", None);
        };
        let token = request.headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let Some(model) = self.models.get(name) else {
            let status = if token.is_some() { 404 } else { 401 };
            return Reply::error(status, "RepoNotFound", "Repository not found", None);
        };
        if let Some(moved) = &model.moved_to {
            return Reply::redirect(307, &format!("/{moved}/resolve/{rest}"), Vec::new());
        }
        match (&model.token, token) {
            (Some(_), None) => return Reply::error(401, "RepoNotFound", "Repository not found", None),
            (Some(needed), Some(token)) if needed != token => {
                return Reply::error(401, "", "Invalid credentials in Authorization header", None);
            }
            _ if model.is_gated => return Reply::error(403, "GatedRepo", "Access to model is restricted", None),
            _ => {}
        }
        let (revision, file) = rest.split_once('/').unwrap();
        let revision = revision.replace("%2F", "/");
        let commit = model.branches.get(&revision).unwrap_or(&revision);
        let Some(files) = model.commits.get(commit) else {
            return Reply::error(404, "RevisionNotFound", "Invalid rev id", None);
        };
        let Some(content) = files.get(file) else {
            return Reply::error(404, "EntryNotFound", "Entry not found", Some(commit));
        };
        let hash = sha256(content);
        let mut headers = vec![("X-Repo-Commit".into(), commit.clone())];
        if file.ends_with(".safetensors") || file.ends_with(".bin") {
            headers.push(("X-Linked-Etag".into(), format!("\"{hash}\"")));
            headers.push(("X-Linked-Size".into(), content.len().to_string()));
            return Reply::redirect(302, &format!("{storage}/storage/{hash}/{file}?signature=x"), headers);
        }
        headers.push(("ETag".into(), format!("\"{}\"", &hash[..40])));
        Reply { status: 200, headers, body: content.clone(), has_ranges: true }
    }

    /// The answer of the host of large files.
    fn stored(&self, request: &Request) -> Reply {
        let mut files = self.models.values().flat_map(|model| model.commits.values()).flat_map(BTreeMap::values);
        match files.find(|content| request.path.contains(&sha256(content))) {
            Some(content) => {
                let headers = vec![("ETag".into(), "\"of-the-storage\"".into())];
                Reply { status: 200, headers, body: content.clone(), has_ranges: true }
            }
            None => Reply::error(403, "", "no such key", None),
        }
    }
}

impl Reply {
    fn error(status: u16, code: &str, message: &str, commit: Option<&str>) -> Self {
        let mut headers = vec![("X-Error-Message".to_string(), message.to_string())];
        if !code.is_empty() {
            headers.push(("X-Error-Code".into(), code.into()));
        }
        headers.extend(commit.map(|commit| ("X-Repo-Commit".into(), commit.into())));
        Self { status, headers, body: message.as_bytes().to_vec(), has_ranges: false }
    }

    fn redirect(status: u16, location: &str, mut headers: Vec<(String, String)>) -> Self {
        headers.push(("Location".into(), location.into()));
        Self { status, headers, body: b"Found. Redirecting".to_vec(), has_ranges: false }
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>, storage: Option<&str>) {
    let Some(request) = read_request(stream) else { return };
    let (mut reply, fault) = {
        let mut state = state.lock().unwrap();
        let line = format!("{} {}", request.method, request.path);
        let (range, token) = (request.headers.get("range"), request.headers.get("authorization"));
        let range = range.map(|range| format!(" {range}")).unwrap_or_default();
        state.log.push(format!("{line}{range}{}", if token.is_some() { " with a token" } else { "" }));
        let reply = match storage {
            Some(storage) => state.resolve(&request, storage),
            None => state.stored(&request),
        };
        (reply, state.fault(&line))
    };
    let mut length_lie = 0;
    match &fault {
        Some(Fault::Status(status, headers)) => {
            let headers = headers.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
            reply = Reply { status: *status, headers, body: Vec::new(), has_ranges: false };
        }
        Some(Fault::Flip) => reply.body[0] ^= 1,
        Some(Fault::LongerLength(more)) => length_lie = *more,
        Some(Fault::OtherVersion) => {
            for (_, value) in reply.headers.iter_mut().filter(|(name, _)| name.ends_with("ETag")) {
                *value = "\"another\"".into();
            }
            reply.body[0] ^= 1;
        }
        Some(Fault::Without(name)) => reply.headers.retain(|(other, _)| other != name),
        _ => {}
    }
    let range = request.headers.get("range").filter(|_| reply.has_ranges && !matches!(fault, Some(Fault::Whole)));
    if let Some(from) = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()) {
        let total = reply.body.len();
        if from >= total {
            reply = Reply { status: 416, headers: Vec::new(), body: Vec::new(), has_ranges: false };
        } else {
            let from = if matches!(fault, Some(Fault::OtherPart)) { from - 1 } else { from };
            reply.headers.push(("Content-Range".into(), format!("bytes {from}-{}/{total}", total - 1)));
            reply.body.drain(..from);
            reply.status = 206;
        }
    }
    let _ = write_reply(stream, &request, &reply, length_lie, fault.as_ref());
}

fn write_reply(
    mut stream: &TcpStream,
    request: &Request,
    reply: &Reply,
    length_lie: usize,
    fault: Option<&Fault>,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status);
    head.extend(reply.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
    head += &format!("Content-Length: {}\r\n\r\n", reply.body.len() + length_lie);
    stream.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    match fault {
        Some(Fault::Cut(bytes)) => stream.write_all(&reply.body[..*bytes.min(&reply.body.len())]),
        Some(Fault::Silence(bytes)) => {
            stream.write_all(&reply.body[..*bytes])?;
            stream.flush()?;
            thread::sleep(Duration::from_secs(20));
            Ok(())
        }
        Some(Fault::Pause(pause)) => {
            let (first, second) = reply.body.split_at(reply.body.len() / 2);
            stream.write_all(first)?;
            stream.flush()?;
            thread::sleep(*pause);
            stream.write_all(second)
        }
        _ => stream.write_all(&reply.body),
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_string(), words.next()?.split('?').next()?.to_string());
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_string())));
    Some(Request { method, path, headers: headers.collect() })
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

//! Where the hub is, and who asks: the environment that other tools of the hub read too.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use http::Uri;

use super::PullError;

const PUBLIC: &str = "https://huggingface.co";

/// A secret, which no output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token, unless the text is empty or can stand in no header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Who is asked, and with which token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The hub's base URL, without a slash at its end.
    pub endpoint: String,
    /// Sent to that host alone.
    pub token: Option<Token>,
    /// Whether nothing may be asked.
    pub offline: bool,
}

impl Settings {
    /// `HF_ENDPOINT`, `HF_HUB_OFFLINE`, and the token of `HF_TOKEN`, of the file `HF_TOKEN_PATH`,
    /// or of the one that `hf auth login` writes.
    ///
    /// # Errors
    ///
    /// `Refused` for an endpoint that is no URL, and a token's file that is named and cannot be
    /// read.
    pub fn from_environment() -> Result<Self, PullError> {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        Self::from_lookup(&read)
    }

    /// The same, of any place that has values by name.
    ///
    /// # Errors
    ///
    /// As [`from_environment`](Self::from_environment).
    pub fn from_lookup(read: &dyn Fn(&str) -> Option<String>) -> Result<Self, PullError> {
        let endpoint = read("HF_ENDPOINT").unwrap_or_else(|| PUBLIC.to_owned());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        if Origin::of(&endpoint).is_none() {
            let message = format!(
                "HF_ENDPOINT = {}: not an http or https URL such as {PUBLIC}",
                endpoint.escape_debug()
            );
            return Err(PullError::Refused(message));
        }
        let offline = read("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase()));
        Ok(Self { endpoint, token: find_token(read)?, offline })
    }
}

fn find_token(read: &dyn Fn(&str) -> Option<String>) -> Result<Option<Token>, PullError> {
    if let Some(text) = read("HF_TOKEN") {
        let unusable = || PullError::refused("HF_TOKEN has characters that no token has");
        return Token::new(&text).map(Some).ok_or_else(unusable);
    }
    if let Some(path) = read("HF_TOKEN_PATH") {
        let text = fs::read_to_string(&path)
            .map_err(|error| PullError::Refused(format!("HF_TOKEN_PATH = {path}: {error}")))?;
        return Ok(Token::new(&text));
    }
    let cache = || read("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || read("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let place = read("HF_HOME").map(PathBuf::from);
    let place = place.or_else(|| cache().or_else(home).map(|cache| cache.join("huggingface")));
    let text = place.and_then(|place| fs::read_to_string(place.join("token")).ok());
    Ok(text.and_then(|text| Token::new(&text)))
}

/// What a token may be sent to: a scheme, a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Origin {
    /// Of an absolute http or https URL.
    pub(super) fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        // What stands before an `@` would be read as the host by an eye, and by some parsers.
        if uri.authority()?.as_str().contains('@') {
            return None;
        }
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        Some(Self { scheme, host, port: uri.port_u16().unwrap_or(usual) })
    }

    /// Whether what is sent there can be read on the way.
    pub(super) fn is_open(&self) -> bool {
        self.scheme == "http" && !self.is_loopback()
    }

    pub(super) fn is_loopback(&self) -> bool {
        ["localhost", "127.0.0.1", "[::1]"].contains(&self.host.as_str())
    }
}

/// Where a redirect from `url` leads. A path alone stays with the host; nothing leads from https
/// to http.
pub(super) fn follow(url: &str, location: &str) -> Option<String> {
    let from = Origin::of(url)?;
    if location.starts_with('/') && !location.starts_with("//") {
        let uri: Uri = url.parse().ok()?;
        return Some(format!("{}://{}{location}", from.scheme, uri.authority()?));
    }
    let to = Origin::of(location)?;
    (from.scheme == "http" || to.scheme == "https").then(|| location.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, PullError> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Settings::from_lookup(&|name| {
            pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.clone())
        })
    }

    #[test]
    fn the_environment_of_the_hubs_tools_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let file = format!("{home}/token");
        let of = |pairs: &[(&str, &str)]| settings(pairs).unwrap().token.map(|token| token.0);
        assert_eq!(of(&[("HF_TOKEN", " hf_a\n"), ("HF_TOKEN_PATH", &file)]).unwrap(), "hf_a");
        assert_eq!(of(&[("HF_TOKEN_PATH", &file)]).unwrap(), "hf_file");
        assert_eq!(of(&[("HF_HOME", home)]).unwrap(), "hf_file");
        assert_eq!(of(&[("HOME", home)]), None);
        assert!(settings(&[("HF_TOKEN_PATH", "/nowhere/token")]).is_err());
        assert!(settings(&[("HF_TOKEN", "a b")]).is_err());
        assert_eq!(settings(&[]).unwrap().endpoint, PUBLIC);
        assert!(settings(&[("HF_ENDPOINT", "ftp://a")]).is_err());
        let mirror = settings(&[("HF_ENDPOINT", "http://mirror/hf/"), ("HF_HUB_OFFLINE", "1")]);
        let mirror = mirror.unwrap();
        assert_eq!((mirror.endpoint.as_str(), mirror.offline), ("http://mirror/hf", true));
        let token = settings(&[("HF_TOKEN", "hf_secret")]).unwrap();
        assert!(!format!("{token:?}").contains("secret"));
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| Origin::of(a) == Origin::of(b);
        assert!(same("https://hub.co/a", "https://HUB.co:443/b"));
        assert!(!same("https://hub.co", "http://hub.co"));
        assert!(!same("https://hub.co", "https://hub.co:444"));
        assert!(!same("https://hub.co", "https://hub.co.evil.net"));
        assert_eq!(Origin::of("https://hub.co@evil.net/"), None);
        assert_eq!(Origin::of("file:///etc/passwd"), None);
    }

    #[test]
    fn a_redirect_never_gives_up_encryption() {
        let at = "https://hub.co:8443/a/b";
        assert_eq!(follow(at, "/c?d").unwrap(), "https://hub.co:8443/c?d");
        assert_eq!(follow(at, "https://cdn.net/x").unwrap(), "https://cdn.net/x");
        assert_eq!(follow(at, "http://cdn.net/x"), None);
        assert_eq!(follow(at, "//cdn.net/x"), None);
        assert_eq!(follow(at, "file:///etc/passwd"), None);
    }
}

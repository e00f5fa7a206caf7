//! A real Chromium without a window, as tests drive it: by its DevTools protocol over a pipe, so that no port is open and it ends
//! with the test, however that ends.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// Far longer than anything takes, on a machine that is busy too.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a page is asked whether something is so yet.
const LOOK: Duration = Duration::from_millis(50);
/// How long it may take to be gone once it is killed.
const FAREWELL: Duration = Duration::from_secs(5);
/// How much of its log is shown where it fails.
const LOG_AT_MOST: usize = 4096;

/// It asks nobody for updates, and finds nobody but this machine.
const ARGUMENTS: [&str; 13] = [
    "--headless=new",
    "--remote-debugging-pipe",
    // Its sandbox can't be had by root, and all that it loads is our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-breakpad",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

/// A browser with one page. Dropped, it is killed, and its folder goes.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    calls: u64,
    session: Option<String>,
    /// What it has told beside answers.
    told: Vec<Value>,
    folder: TempDir,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// A phone, which lays pages out in its own way.
    pub mobile: bool,
    /// The person prefers dark pages.
    pub dark: bool,
}

impl Browser {
    /// Starts one with an empty profile.
    ///
    /// # Errors
    /// Where it can't be had or started.
    pub async fn start() -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("chromium/get.sh");
        let found = Command::new(script).output().await.context("running chromium/get.sh")?;
        ensure!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let found = String::from_utf8(found.stdout)?;
        let told = |name: &str| found.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));

        let folder = tempfile::Builder::new().prefix("virtnet-chromium-").tempdir()?;
        let fonts = folder.path().join("fonts.conf");
        std::fs::write(&fonts, fonts_conf(told("fonts"), folder.path()))?;
        let log = File::create(folder.path().join("log"))?;
        // It speaks by the file descriptors 3 and 4, which only a shell gives without unsafe code.
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >&2"#, "sh"]);
        command.arg(told("program").context("chromium/get.sh names no program")?);
        command.args(ARGUMENTS).arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
        command.env("HOME", folder.path()).env("FONTCONFIG_FILE", fonts);
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_CACHE_HOME");
        if let Some(libraries) = told("libraries") {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().context("starting sh")?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = (input.context("no pipe")?, BufReader::new(output.context("no pipe")?));
        let mut browser = Self { child, input, output, calls: 0, session: None, told: Vec::new(), folder };

        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await?;
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", target).await?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(browser)
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// Where that can't be loaded.
    pub async fn open(&mut self, url: &str) -> anyhow::Result<()> {
        let answer = self.call("Page.navigate", json!({"url": url})).await?;
        ensure!(answer["errorText"].is_null(), "{url}: {}", answer["errorText"]);
        self.until("document.readyState === 'complete'").await
    }

    /// What an expression of JavaScript comes to.
    ///
    /// # Errors
    /// Where it throws.
    pub async fn eval(&mut self, expression: &str) -> anyhow::Result<Value> {
        let question = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", question).await?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].take())
    }

    /// Waits until an expression of JavaScript is true.
    ///
    /// # Errors
    /// Where it does not come true, with what the page shows.
    pub async fn until(&mut self, expression: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.eval(expression).await? != Value::Bool(true) {
            if begun.elapsed() > LIMIT {
                let shown = self.eval("document.body.innerText.slice(0, 2000)").await?;
                bail!(
                    "it never was so: {expression}\nthe page shows:\n{}",
                    shown.as_str().unwrap_or_default()
                );
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Looks at the page so from now on.
    ///
    /// # Errors
    /// Where it refuses.
    pub async fn look(&mut self, look: Look) -> anyhow::Result<()> {
        let Look { width, height, mobile, dark } = look;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await?;
        let scheme = json!({"name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" }});
        self.call("Emulation.setEmulatedMedia", json!({"features": [scheme]})).await?;
        Ok(())
    }

    /// Presses a key, as the keyboard does.
    ///
    /// # Errors
    /// Where it refuses.
    pub async fn press(&mut self, key: &str) -> anyhow::Result<()> {
        let text = if key == "Enter" { "\r" } else { "" };
        for type_ in ["keyDown", "keyUp"] {
            let code = match key {
                "Enter" => 13,
                "Tab" => 9,
                other => bail!("unknown key {other}"),
            };
            let event =
                json!({"type": type_, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", event).await?;
        }
        Ok(())
    }

    /// What is seen, as PNG.
    ///
    /// # Errors
    /// Where it can't be had.
    pub async fn screenshot(&mut self) -> anyhow::Result<Vec<u8>> {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"})).await?;
        STANDARD.decode(shot["data"].as_str().unwrap_or_default()).context("decoding a screenshot")
    }

    /// The addresses that were asked for, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<&str> {
        let requests = self.told.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        requests.filter_map(|event| event["params"]["request"]["url"].as_str()).collect()
    }

    /// What the page or the browser has said on the console, thrown or refused.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let methods = ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"];
        let complaints =
            self.told.iter().filter(|event| methods.iter().any(|method| event["method"] == *method));
        complaints.map(|event| event["params"].to_string()).collect()
    }

    /// Ends it, and waits until nothing of it is left.
    ///
    /// # Errors
    /// Where something is.
    pub async fn close(mut self) -> anyhow::Result<()> {
        let path = self.folder.path().to_owned();
        self.session = None;
        self.call("Browser.close", json!({})).await?;
        timeout(LIMIT, self.child.wait()).await.context("waiting for Chromium to end")??;
        let begun = Instant::now();
        while let Some(process) = processes_of(&path)? {
            ensure!(begun.elapsed() < LIMIT, "process {process} of Chromium is left");
            sleep(LOOK).await;
        }
        drop(self);
        ensure!(!path.exists(), "{} is left", path.display());
        Ok(())
    }

    async fn call(&mut self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        let answer = timeout(LIMIT, self.ask(method, parameters)).await;
        let answer = answer.unwrap_or_else(|_| bail!("no answer in {} s", LIMIT.as_secs()));
        answer.with_context(|| format!("{method}\n{}", self.log()))
    }

    async fn ask(&mut self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        self.calls += 1;
        let mut question = json!({"id": self.calls, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            question["sessionId"] = json!(session);
        }
        // A message ends with a zero byte, in either direction.
        let mut bytes = serde_json::to_vec(&question)?;
        bytes.push(0);
        self.input.write_all(&bytes).await.context("telling Chromium")?;
        loop {
            bytes.clear();
            self.output.read_until(0, &mut bytes).await.context("hearing Chromium")?;
            ensure!(bytes.pop() == Some(0), "Chromium has ended");
            let mut message: Value = serde_json::from_slice(&bytes)?;
            if message["id"] != self.calls {
                self.told.push(message);
                continue;
            }
            ensure!(message["error"].is_null(), "{}", message["error"]);
            return Ok(message["result"].take());
        }
    }

    fn log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_AT_MOST)..]).into_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let Some(id) = self.child.id() else { return };
        let group = format!("-{id}");
        let _ =
            std::process::Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        // Its helpers write into the folder until they are gone, and that goes next.
        let begun = Instant::now();
        while begun.elapsed() < FAREWELL && processes_of(self.folder.path()).is_ok_and(|left| left.is_some())
        {
            std::thread::sleep(LOOK);
        }
    }
}

/// Fonts are those of the machine and of the package, and the same faces wherever there are these.
fn fonts_conf(packaged: Option<&str>, folder: &Path) -> String {
    let folders = ["/usr/share/fonts"].into_iter().chain(packaged);
    let folders: String = folders.map(|folder| format!("<dir>{folder}</dir>")).collect();
    format!(
        "<?xml version=\"1.0\"?><!DOCTYPE fontconfig SYSTEM \"fonts.dtd\">\n\
         <fontconfig>{folders}<cachedir>{}</cachedir>\n\
         <alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>\n\
         <match><edit name=\"family\" mode=\"append_last\"><string>DejaVu Sans</string></edit></match></fontconfig>\n",
        folder.join("fonts").display()
    )
}

/// A process that has this folder for its home.
fn processes_of(folder: &Path) -> anyhow::Result<Option<String>> {
    let home = format!("HOME={}", folder.display());
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == home.as_bytes()) {
            return Ok(Some(entry.file_name().to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

//! virtnet.conf as it was last read: [`Source`].

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use virtnet_controller::conf::Conf;
use virtnet_model::PartError;

/// The text that workers are given, and where it comes from.
#[derive(Debug)]
pub(super) struct Source {
    file: Option<PathBuf>,
    text: Mutex<String>,
}

impl Source {
    /// A text that was read from a file, or is nobody's.
    pub(super) fn new(text: String, file: Option<PathBuf>) -> Self {
        Self { file, text: Mutex::new(text) }
    }

    pub(super) fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file, and what would be read of it now, or what holds where there is none.
    ///
    /// # Errors
    /// Where it can't be read.
    pub(super) fn next(&self) -> Result<(Option<&Path>, String), PartError> {
        let Some(file) = &self.file else { return Ok((None, self.text())) };
        let text = std::fs::read_to_string(file)
            .map_err(|error| PartError::failed(format!("reading {}", file.display())).caused_by(error))?;
        Ok((Some(file), text))
    }

    /// What the text of now says, which was checked before it was taken.
    pub(super) fn said(&self) -> Conf {
        Conf::parse(&self.text()).unwrap_or_default()
    }

    /// Holds to a text of before, where nothing came of what was read since.
    pub(super) fn go_back(&self, text: String) {
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Reads the file again: the controller reads it whenever it starts (the guide, section 1.1.1). What can't be used is told,
    /// and what was read before holds.
    pub(super) fn reread(&self) {
        let Some(file) = &self.file else { return };
        let read = std::fs::read_to_string(file).map_err(|error| error.to_string());
        let checked = read.and_then(|text| match Conf::parse(&text) {
            Ok(_) => Ok(text),
            Err(error) => Err(error.to_string()),
        });
        match checked {
            Ok(text) => *self.text.lock().unwrap_or_else(PoisonError::into_inner) = text,
            Err(why) => {
                tracing::error!("reading {}: {why}: what was read of it before holds", file.display());
            }
        }
    }
}

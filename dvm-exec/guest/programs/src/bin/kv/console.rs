//! The console of the service: the serial line or the virtio one.
//!
//! Owns how a line is read. The first processor alone uses it, and halts until something is typed.

use crate::text::Text;
use dvm_kit::interrupt::halt_until;
use dvm_kit::line::{self, Trigger};
use dvm_kit::sys::port;
use dvm_kit::{boot, interrupt, print, virtio};

const VECTOR: u8 = 0x60;

/// A console.
pub enum Console {
    Serial,
    Virtio(virtio::console::Console),
}

impl Console {
    /// The console that the command line names.
    pub fn find() -> Result<Self, &'static str> {
        if !boot::command_line().split(' ').any(|word| word == "virtio") {
            line::route(line::SERIAL, 0, VECTOR, Trigger::Edge);
            port::listen();
            return Ok(Self::Serial);
        }
        let console = virtio::console::Console::find().ok_or("there is no virtio console")?;
        interrupt::on(VECTOR, || {
            if let Some(device) = virtio::Device::find(virtio::console::ID, 0) {
                device.answer();
            }
        });
        line::route(console.device().pin(), 0, VECTOR, Trigger::Level);
        console.want_interrupts(true);
        Ok(Self::Virtio(console))
    }

    /// Shows text.
    pub fn show(&mut self, text: &str) {
        match self {
            Self::Serial => print!("{text}"),
            Self::Virtio(console) => console.show(text),
        }
    }

    fn take(&mut self) -> u8 {
        match self {
            Self::Serial => {
                halt_until(port::has_heard);
                port::take()
            }
            Self::Virtio(console) => loop {
                halt_until(|| console.has_typed());
                if let Some(byte) = console.take() {
                    return byte;
                }
            },
        }
    }

    /// The next line that is typed, without its end; what does not fit is left out.
    pub fn line(&mut self) -> Text {
        let mut line = Text::new();
        loop {
            match self.take() {
                b'\n' => return line,
                byte => {
                    line.push(byte);
                }
            }
        }
    }
}

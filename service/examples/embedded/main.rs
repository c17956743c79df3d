//! A small firmware program that embeds the service: a greenhouse with one sensor and one valve.
//!
//! It adds its own routes, a health check, pages in the binary and pages on storage, and it stays in
//! charge: it measures in its own loop and decides itself when to stop.
//!
//! Run it with `cargo run --example embedded -- CONFIG MANUAL_DIRECTORY`; it ends at the end of its
//! standard input.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use edgeweb::actix_web::http::StatusCode;
use edgeweb::actix_web::web::Json;
use edgeweb::rust_embed::Embed;
use edgeweb::{Config, Problem, Role, RouteGroup, Server, logging};
use serde::{Deserialize, Serialize};

/// The greenhouse's pages, in the binary.
#[derive(Embed)]
#[folder = "examples/embedded/pages"]
struct Pages;

/// What the hardware would know.
struct Greenhouse {
    /// Tenths of a degree Celsius; nothing until the first measurement.
    temperature: AtomicI32,
    measured: AtomicBool,
    valve_open: AtomicBool,
}

#[derive(Serialize)]
struct Climate {
    temperature_celsius: f32,
    valve_open: bool,
}

#[derive(Deserialize)]
struct Valve {
    open: bool,
}

fn routes(greenhouse: &Arc<Greenhouse>) -> RouteGroup {
    let read = Arc::clone(greenhouse);
    let write = Arc::clone(greenhouse);
    RouteGroup::new("greenhouse")
        .get(Role::Guest, "/greenhouse/climate", move || {
            let greenhouse = Arc::clone(&read);
            async move { climate(&greenhouse) }
        })
        .put(
            Role::Guest,
            "/greenhouse/valve",
            move |Json(valve): Json<Valve>| {
                let greenhouse = Arc::clone(&write);
                async move {
                    greenhouse.valve_open.store(valve.open, Ordering::Relaxed);
                    climate(&greenhouse)
                }
            },
        )
}

fn climate(greenhouse: &Greenhouse) -> Result<Json<Climate>, Problem> {
    if !greenhouse.measured.load(Ordering::Relaxed) {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the sensor has not measured yet; ask again in a second",
        ));
    }
    Ok(Json(Climate {
        temperature_celsius: greenhouse.temperature.load(Ordering::Relaxed) as f32 / 10.0,
        valve_open: greenhouse.valve_open.load(Ordering::Relaxed),
    }))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, manual] = arguments.as_slice() else {
        return Err("usage: embedded CONFIG MANUAL_DIRECTORY".into());
    };
    let config = Config::load(Path::new(config))?;
    logging::install(&config.log)?;

    let greenhouse = Arc::new(Greenhouse {
        temperature: AtomicI32::new(0),
        measured: AtomicBool::new(false),
        valve_open: AtomicBool::new(false),
    });
    let sensor = Arc::clone(&greenhouse);
    let server = Server::builder()
        .name("greenhouse", "2.1.0")
        .config(config)
        .routes(routes(&greenhouse))
        .health_check("sensor", move || {
            if sensor.measured.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err(String::from("no measurement yet"))
            }
        })
        .embedded_assets::<Pages>("/greenhouse")
        .asset_directory("/manual", manual)
        .start()?;
    for endpoint in server.endpoints() {
        println!("{endpoint}");
    }

    // The program's own work goes on; here the first measurement takes a moment.
    let hardware = Arc::clone(&greenhouse);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(1));
            hardware.temperature.store(215, Ordering::Relaxed);
            hardware.measured.store(true, Ordering::Relaxed);
        }
    });

    // Whoever started the program closes its input to end it.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    server.stop()?;
    println!("stopped");
    Ok(())
}

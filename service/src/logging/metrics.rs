//! The numbers of the log path in Prometheus's text format (version 0.0.4).
//!
//! Written by hand: a client library keeps registries of its own beside numbers that are already here.

use std::fmt::{self, Write};
use std::sync::atomic::Ordering;

use super::counters::{BySeverity, Counters};
use super::severity::Severity;

/// Appends every number of the log path; nothing where the process has another logger.
pub(crate) fn write_metrics(out: &mut String) {
    if let Some(path) = super::path() {
        // Writing to a String cannot fail.
        let _ = write(out, &path.counters);
    }
}

fn write(out: &mut String, counters: &Counters) -> fmt::Result {
    by_severity(
        out,
        "edgeweb_log_records_total",
        "Log records that passed the filter.",
        &counters.produced,
    )?;
    by_severity(
        out,
        "edgeweb_log_records_dropped_total",
        "Log records that found no room in front of the log's own thread.",
        &counters.dropped,
    )?;
    by_severity(
        out,
        "edgeweb_log_records_handled_total",
        "Log records that were given to the sinks.",
        &counters.handled,
    )?;
    let (syslog, recent, journal) = (&counters.syslog, &counters.recent, &counters.journal);
    let uplink = &counters.uplink;
    for (name, kind, help, value) in [
        (
            "syslog_sent_total",
            "counter",
            "Log records that the syslog daemon took.",
            syslog.sent.get(),
        ),
        (
            "syslog_lost_total",
            "counter",
            "Log records that the syslog daemon did not take.",
            syslog.lost.get(),
        ),
        (
            "syslog_connections_total",
            "counter",
            "Connections to the syslog daemon.",
            syslog.connections.get(),
        ),
        (
            "stream_readers",
            "gauge",
            "Readers of the live stream.",
            recent.readers.get(),
        ),
        (
            "stream_readers_dropped_total",
            "counter",
            "Readers of the live stream that were slower than the log.",
            recent.readers_dropped.get(),
        ),
        (
            "stream_readers_refused_total",
            "counter",
            "Readers that found all places at the live stream taken.",
            recent.readers_refused.get(),
        ),
        (
            "journal_up",
            "gauge",
            "Whether log records get to the journal's storage.",
            u64::from(journal.working.load(Ordering::Relaxed)),
        ),
        (
            "journal_records_total",
            "counter",
            "Log records written to the journal.",
            journal.written.get(),
        ),
        (
            "journal_records_lost_total",
            "counter",
            "Log records that waited for the journal's storage in vain.",
            journal.lost.get(),
        ),
        (
            "journal_written_bytes_total",
            "counter",
            "Bytes written to the journal.",
            journal.bytes_written.get(),
        ),
        (
            "journal_syncs_total",
            "counter",
            "Times that the journal was brought to the storage.",
            journal.syncs.get(),
        ),
        (
            "journal_errors_total",
            "counter",
            "Writes and syncs of the journal that failed.",
            journal.errors.get(),
        ),
        (
            "journal_damaged_total",
            "counter",
            "Damaged places that were found in the journal at the start.",
            journal.damaged.get(),
        ),
        (
            "journal_torn_bytes_total",
            "counter",
            "Bytes that a power cut left at the end of the journal.",
            journal.torn_bytes.get(),
        ),
        (
            "journal_segments_dropped_total",
            "counter",
            "Segments of the journal that made room for newer ones.",
            journal.segments_dropped.get(),
        ),
        (
            "journal_bytes",
            "gauge",
            "Storage that the journal takes.",
            journal.bytes.get(),
        ),
        (
            "uplink_up",
            "gauge",
            "Whether there is a connection to the collector.",
            u64::from(uplink.connected.load(Ordering::Relaxed)),
        ),
        (
            "uplink_sent_total",
            "counter",
            "Log records written to the collector, each time that they were.",
            uplink.sent.get(),
        ),
        (
            "uplink_resent_total",
            "counter",
            "Log records written to the collector again, after a connection was lost.",
            uplink.resent.get(),
        ),
        (
            "uplink_confirmed_total",
            "counter",
            "Log records that the collector has.",
            uplink.confirmed.get(),
        ),
        (
            "uplink_dropped_total",
            "counter",
            "Log records that waited in memory for the collector in vain.",
            uplink.dropped.get(),
        ),
        (
            "uplink_attempts_total",
            "counter",
            "Attempts to connect to the collector.",
            uplink.attempts.get(),
        ),
        (
            "uplink_failures_total",
            "counter",
            "Attempts to connect to the collector, and connections, that failed.",
            uplink.failures.get(),
        ),
    ] {
        head(out, &format!("edgeweb_log_{name}"), kind, help)?;
        writeln!(out, "edgeweb_log_{name} {value}")?;
    }
    Ok(())
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn by_severity(out: &mut String, name: &str, help: &str, counts: &BySeverity) -> fmt::Result {
    head(out, name, "counter", help)?;
    for severity in Severity::ALL {
        let count = counts.of(severity).get();
        writeln!(out, "{name}{{severity=\"{severity}\"}} {count}")?;
    }
    Ok(())
}

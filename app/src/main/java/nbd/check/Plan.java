package nbd.check;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Optional;

/**
 * The extent of a check.
 *
 * @param connections the number of connections at a time
 * @param duration of the random history
 * @param seed of the random choices
 * @param longest the most steps of the short histories that are all run first; 0 for none
 * @param restart how to restart the server during the history, if it may be
 * @param save the file for the random history, if it is to be saved
 */
public record Plan(
    int connections,
    Duration duration,
    long seed,
    int longest,
    Optional<Restart> restart,
    Optional<Path> save) {}

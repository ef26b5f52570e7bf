/**
 * The take-over of a running server by a new process, which goes on with its clients, listening
 * sockets and locked images.
 */
@NullMarked
package nbd.takeover;

import org.jspecify.annotations.NullMarked;

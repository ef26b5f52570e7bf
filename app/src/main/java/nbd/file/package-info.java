/** Image files, block devices and directories of them, as storage. */
@NullMarked
package nbd.file;

import org.jspecify.annotations.NullMarked;
